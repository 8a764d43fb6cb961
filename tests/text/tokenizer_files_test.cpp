// Tokenizers of every kind of file, against the libraries that made them
// (tools/reference/golden_tokenizer_files.py).
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/text/tokenizer.h"
#include "tests/support/test_paths.h"

namespace qianli::text {
namespace {

using testing::source_path;
using testing::TemporaryFolder;

fs::path golden(const std::string& name) {
  return source_path("tests/golden/tokenizer/files") / name;
}

void expect_case(const std::shared_ptr<const Tokenizer>& tokenizer, const Json& item) {
  const auto text = item["text"].get<std::string>();
  const auto plain_ids = item["plain_ids"].get<std::vector<int32_t>>();
  EXPECT_EQ(tokenizer->encode(text, false), plain_ids) << item["text"];
  EXPECT_EQ(tokenizer->encode(text, false), plain_ids) << "from the cache: " << item["text"];
  const auto ids = item.value("ids", plain_ids);
  if (item.contains("ids")) {
    EXPECT_EQ(tokenizer->encode(text, true), ids) << item["text"];
  }
  for (const bool skip : {false, true}) {
    const char* key = skip ? "decoded_skipping" : "decoded";
    const DecodeOptions options{.skip_special_tokens = skip};
    const std::string decoded = tokenizer->decode(ids, options);
    if (item.contains(key)) {
      EXPECT_EQ(decoded, item[key].get<std::string>()) << item["text"];
    }
    StreamingDecoder stream(tokenizer, options);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), decoded);
  }
}

TEST(TokenizerFiles, give_the_ids_and_texts_of_the_reference_libraries) {
  size_t count = 0;
  for (const auto& entry : fs::directory_iterator(source_path("tests/golden/tokenizer/files"))) {
    SCOPED_TRACE(entry.path().filename().string());
    const auto tokenizer = Tokenizer::load(entry.path());
    for (const Json& item : read_json(entry.path() / "cases.json", FileRole::kData)) {
      expect_case(tokenizer, item);
    }
    ++count;
  }
  EXPECT_GE(count, 30u);
}

// Sums of scores beyond what floats tell apart, where SentencePiece counts anew.
TEST(TokenizerFiles, give_the_ids_of_sentencepiece_for_long_texts) {
  for (const char* name : {"sp_unigram", "sp_unigram_bytes", "sp_unigram_ids", "sp_unigram_suffix",
                           "sp_unigram_unused"}) {
    SCOPED_TRACE(name);
    std::vector<std::string> texts;
    for (const Json& item : read_json(golden(name) / "cases.json", FileRole::kData))
      texts.push_back(item["text"]);
    const std::string all = fmt::format("{}", fmt::join(texts, " "));
    std::string text;
    const Json expected = read_json(golden(name) / "long.json", FileRole::kData);
    for (int i = 0; i < expected["times"].get<int>(); ++i) text += all;
    const auto ids = Tokenizer::load(golden(name))->encode(text, false);
    EXPECT_EQ(ids.size(), expected["count"].get<size_t>());
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    for (const int32_t id : ids) hash = (hash ^ static_cast<uint32_t>(id)) * 0x100000001b3;
    EXPECT_EQ(fmt::format("{:016x}", hash), expected["fnv1a"].get<std::string>());
  }
}

class Folder {
 public:
  Folder& file(const std::string& name, const std::string& bytes) {
    write_file_atomically(folder_ / name, bytes, FileRole::kData);
    return *this;
  }
  Folder& json(const std::string& name, const Json& json) { return file(name, json.dump()); }
  Folder& copy(const fs::path& source) {
    return file(source.filename().string(), read_file(source, FileRole::kData));
  }
  std::shared_ptr<const Tokenizer> load() const { return Tokenizer::load(folder_.path()); }

 private:
  TemporaryFolder folder_;
};

bool loads(const Folder& folder) {
  try {
    return folder.load() != nullptr;
  } catch (const DataError&) {
    return false;
  }
}

TEST(TokenizerFiles, take_added_tokens_from_the_configuration) {
  Folder folder;
  folder.copy(golden("sp_llama") / "tokenizer.model");
  auto tokenizer = folder.load();
  const int32_t size = static_cast<int32_t>(tokenizer->vocab_size());
  // SentencePiece takes no control piece from a text; bos stands in front.
  EXPECT_EQ(tokenizer->encode("", true), (std::vector<int32_t>{1}));
  const auto spelled = tokenizer->encode("<s>", false);
  EXPECT_TRUE(std::find(spelled.begin(), spelled.end(), 1) == spelled.end());
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a <s> b", true), true), "a <s> b");

  folder.json("tokenizer_config.json",
              {{"tokenizer_class", "LlamaTokenizer"},
               {"add_eos_token", true},
               {"bos_token", "<s>"},
               {"eos_token", {{"content", "</s>"}}},
               {"added_tokens_decoder",
                {{"1", {{"content", "<s>"}, {"special", true}}},
                 {std::to_string(size), {{"content", "<|im_end|>"}, {"rstrip", true}}}}},
               {"additional_special_tokens", {"<|im_end|>", "<new>"}}});
  tokenizer = folder.load();
  EXPECT_EQ(tokenizer->vocab_size(), size + 2);
  EXPECT_EQ(tokenizer->id_of("<new>"), size + 1);
  EXPECT_TRUE(tokenizer->is_special(size));
  EXPECT_EQ(tokenizer->encode("<s><|im_end|>  <new>", true),
            (std::vector<int32_t>{1, 1, size, size + 1, 2}));
}

TEST(TokenizerFiles, begin_only_the_text_with_a_space_where_legacy_is_false) {
  Folder folder;
  folder.copy(golden("sp_llama") / "tokenizer.model");
  const auto with = [&](bool legacy) {
    folder.json("tokenizer_config.json", {{"legacy", legacy}, {"bos_token", "<s>"}});
    const auto tokenizer = folder.load();
    return tokenizer->decode(tokenizer->encode("a<s>b", false), false);
  };
  EXPECT_EQ(with(true), "a<s> b");
  EXPECT_EQ(with(false), "a<s>b");
}

TEST(TokenizerFiles, prefer_tokenizer_json) {
  Folder folder;
  folder.copy(golden("sp_llama") / "tokenizer.model").copy(golden("bert") / "tokenizer.json");
  EXPECT_EQ(folder.load()->kind(), "WordPiece");
}

TEST(TokenizerFiles, tell_a_rank_file_from_a_sentencepiece_model) {
  const std::string ranks = read_file(golden("tiktoken_qwen") / "qwen.tiktoken", FileRole::kData);
  Folder folder;
  folder.file("tokenizer.model", ranks);
  EXPECT_THROW(folder.load(), DataError);  // of which family?
  folder.json("tokenizer_config.json", {{"tokenizer_class", "PreTrainedTokenizerFast"}});
  EXPECT_THROW(folder.load(), DataError);
  folder.json("tokenizer_config.json", {{"tokenizer_class", "LlamaTokenizer"}});
  const auto llama3 = folder.load();
  const auto size = static_cast<int32_t>(llama3->vocab_size());
  EXPECT_EQ(llama3->encode("<|eot_id|>", true), (std::vector<int32_t>{size - 256, size - 256 + 9}));
  EXPECT_EQ(llama3->bos_id(), size - 256);
}

TEST(TokenizerFiles, read_vocab_json_with_merges_as_tokenizer_json_of_the_same_model) {
  const Json json = read_json(golden("falcon") / "tokenizer.json", FileRole::kData);
  std::string merges = "#version: 0.2\n";
  for (const Json& pair : json["model"]["merges"]) {
    merges += pair[0].get<std::string>() + " " + pair[1].get<std::string>() + "\n";
  }
  Json vocab = json["model"]["vocab"];
  const auto eos = static_cast<int32_t>(vocab.size());
  vocab["<|endoftext|>"] = eos;
  Folder folder;
  folder.json("vocab.json", vocab).file("merges.txt", merges);
  Json byte_level = {{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  Json same = json;
  same["pre_tokenizer"] = same["decoder"] = byte_level;
  const auto expected = Tokenizer::from_json(same.dump(), "same");
  auto tokenizer = folder.load();
  EXPECT_EQ(tokenizer->eos_id(), eos);
  const std::string text = "Hello world! It's 12345 tests.\n\n  caf\u00e9 \u4f60";
  EXPECT_EQ(tokenizer->encode(text, true), expected->encode(text, true));
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, true), false), text);
  EXPECT_EQ(tokenizer->encode("a<|endoftext|>", true).back(), eos);

  folder.json(
      "tokenizer_config.json",
      {{"add_prefix_space", true}, {"add_bos_token", true}, {"bos_token", "<|endoftext|>"}});
  tokenizer = folder.load();
  auto prefixed = expected->encode(" " + text, true);
  prefixed.insert(prefixed.begin(), eos);
  EXPECT_EQ(tokenizer->encode(text, true), prefixed);
  folder.file("merges.txt", "a b c\n");
  EXPECT_THROW(folder.load(), DataError);
}

// tools/reference/golden_extra_tokens.py
TEST(TokenizerFiles, add_the_tokens_beside_a_tokenizer_json_as_transformers_does) {
  const auto path = source_path("tests/golden/tokenizer/extra_tokens.json");
  const OrderedJson golden =
      parse_ordered_json(read_file(path, FileRole::kData), path.string(), FileRole::kData);
  std::set<std::string> fingerprints;
  for (const OrderedJson& item : golden["cases"]) {
    Folder folder;
    folder.file("tokenizer.json", golden["tokenizer"].dump());
    for (const auto& [name, content] : item["files"].items()) folder.file(name, content.dump());
    const auto tokenizer = folder.load();
    fingerprints.insert(tokenizer->fingerprint());
    for (size_t i = 0; i < golden["texts"].size(); ++i) {
      EXPECT_EQ(tokenizer->encode(golden["texts"][i].get<std::string>(), false),
                item["ids"][i].get<std::vector<int32_t>>())
          << item["files"] << golden["texts"][i];
    }
  }
  EXPECT_GT(fingerprints.size(), 4u);
}

TEST(TokenizerFiles, refuse_what_is_no_token_beside_a_tokenizer_json) {
  const Json golden =
      read_json(source_path("tests/golden/tokenizer/extra_tokens.json"), FileRole::kData);
  const Json cases[] = {{{"added_tokens_decoder", {{"x", {{"content", "y"}}}}}},
                        {{"added_tokens_decoder", {{"-1", {{"content", "y"}}}}}},
                        {{"added_tokens_decoder", {{"7", "y"}}}},
                        {{"added_tokens_decoder", {{"7", {{"content", 1}}}}}},
                        {{"added_tokens_decoder", Json::array()}},
                        {{"extra_special_tokens", {1}}},
                        {{"extra_special_tokens", {{"a", Json::array()}}}},
                        {{"additional_special_tokens", {std::string(5000, 'x')}}}};
  for (const Json& config : cases) {
    Folder folder;
    folder.json("tokenizer.json", golden["tokenizer"]).json("tokenizer_config.json", config);
    try {
      folder.load();
      ADD_FAILURE() << config << " was accepted";
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find("json"), std::string::npos) << error.what();
    }
  }
}

TEST(TokenizerFiles, refuse_a_configuration_that_no_tokenizer_needs) {
  const std::string large = "{\"x\": \"" + std::string(size_t{1} << 24, 'x') + "\"}";
  for (const char* name :
       {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    Folder folder;
    folder.file("vocab.txt", "[UNK]\n[CLS]\n[SEP]\n").file(name, large);
    EXPECT_THROW(folder.load(), DataError) << name;
    folder.file(name, "{\"x\": NaN}");
    EXPECT_EQ(name != std::string("added_tokens.json"), loads(folder)) << name;
  }
}

TEST(TokenizerFiles, read_vocab_txt_as_bert_does) {
  const Json json = read_json(golden("bert") / "tokenizer.json", FileRole::kData);
  std::vector<std::string> tokens(json["model"]["vocab"].size());
  for (const auto& [token, id] : json["model"]["vocab"].items()) tokens[id.get<size_t>()] = token;
  std::string lines;
  for (const std::string& token : tokens) lines += token + "\n";
  Folder folder;
  folder.file("vocab.txt", lines);
  const auto tokenizer = folder.load();
  for (const Json& item : read_json(golden("bert") / "cases.json", FileRole::kData)) {
    const auto text = item["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode(text, true), item["ids"].get<std::vector<int32_t>>()) << text;
  }
}

TEST(TokenizerFiles, read_tekken_json) {
  Json vocab = Json::array();
  const auto add = [&](const std::string& base64) {
    vocab.push_back({{"rank", vocab.size()}, {"token_bytes", base64}, {"token_str", nullptr}});
  };
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int byte = 0; byte < 256; ++byte) {
    add({kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '='});
  }
  add("YWI=");      // ab
  add("dW51c2Vk");  // unused: behind the size
  const Json json = {
      {"config",
       {{"pattern", "\\p{L}+|."}, {"default_vocab_size", 267}, {"default_num_special_tokens", 10}}},
      {"vocab", vocab},
      {"special_tokens", {{{"rank", 1}, {"token_str", "<s>"}}}}};
  const auto tokenizer = Tokenizer::from_bytes("tekken.json", json.dump(), "tekken.json");
  EXPECT_EQ(tokenizer->vocab_size(), 267);
  EXPECT_EQ(tokenizer->encode("ab<", true), (std::vector<int32_t>{1, 266, 10 + '<'}));
  EXPECT_EQ(tokenizer->token(3), "<SPECIAL_3>");
}

struct Refused {
  const char* name;
  std::string bytes;
  const char* says;
};

TEST(TokenizerFiles, refuse_what_is_damaged_by_name) {
  const std::string model = read_file(golden("sp_bpe") / "tokenizer.model", FileRole::kData);
  const Refused cases[] = {
      {"tokenizer.model", "", "none"},
      {"tokenizer.model", model.substr(0, model.size() / 2), "protocol buffer"},
      {"tokenizer.model", std::string("\x0a\x02\x0a\x00", 4), "1 to 7999 bytes"},
      {"tokenizer.model", std::string("\x0a\x03\x0a\x01\xff", 5), "UTF-8"},
      {"tokenizer.model", std::string("\x0a\x03\x0a\x01z", 5), "unknown piece"},
      {"tokenizer.model", "\x0b", "type 3"},
      {"tokenizer.model", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "64 bits"},
      {"x.tiktoken", "YQ== 0\n", "known family"},
      {"cl100k_base.tiktoken", "YQ== 0\n", "for every byte"},
      {"cl100k_base.tiktoken", "YQ== 0\nYQ== 1\n", "twice"},
      {"cl100k_base.tiktoken", "YQ= 0\n", "base64"},
      {"cl100k_base.tiktoken", "YQ== 99999999999\n", "a rank"},
      {"cl100k_base.tiktoken", "YQ== 9999999\n", "gaps"},
      {"vocab.json", "{\"a\": 1, \"b\": 1}", "id 1 twice"},
      {"vocab.txt", "a\na\n", "'a' in line 2"},
      {"vocab.txt", "a\nb\n", "[UNK]"},
      {"tekken.json", "{}", "'config'"},
  };
  for (const Refused& item : cases) {
    try {
      Tokenizer::from_bytes(item.name, item.bytes, "the/file");
      ADD_FAILURE() << item.name << " " << item.bytes << " was accepted";
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(item.says), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("the/file"), std::string::npos) << error.what();
    }
  }
}

TEST(TokenizerFiles, bound_pieces_that_would_take_minutes) {
  std::string model;
  for (int i = 0; i < 40; ++i) {  // 40 pieces of 7900 bytes
    const std::string piece(7900, static_cast<char>('a' + i % 26));
    std::string message = "\x0a\xdc\x3d" + piece;
    message[3 + 10] = static_cast<char>('A' + i);
    model += "\x0a\xdf\x3d" + message;
  }
  model += std::string("\x0a\x09\x0a\x05<unk>\x18\x02", 11) + std::string("\x12\x02\x18\x02", 4);
  try {
    Tokenizer::from_bytes("tokenizer.model", model, "long.model");
    ADD_FAILURE() << "was accepted";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("length"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace qianli::text
