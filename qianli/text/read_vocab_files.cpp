// Tokenizers from the files of older folders: vocab.json with merges.txt, and vocab.txt.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/text/bpe_model.h"
#include "qianli/text/merges.h"
#include "qianli/text/read_files.h"
#include "qianli/text/read_json.h"
#include "qianli/text/word_models.h"

namespace qianli::text {
namespace {

[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& got) {
  throw DataError("tokenizer", fmt::format("expected {} in {}, got {}", expected, where, got));
}

template <class Body>
void each_line(std::string_view text, const Body& body) {
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.ends_with('\r')) line.remove_suffix(1);
    body(line, ++number);
  }
}

// What the classes of transformers put around the model.
struct VocabFamily {
  Pipeline pipeline;
  std::string end_of_word_suffix;
  bool wraps = false;  // texts stand between cls and sep
  std::string_view cls, sep, eos;
};

std::string byte_level(bool prefix_space, bool use_regex) {
  return fmt::format(
      R"({{"type":"ByteLevel","add_prefix_space":{},"trim_offsets":true,"use_regex":{}}})",
      prefix_space, use_regex);
}

std::string split_then_bytes(const std::string& regex, const char* behavior, bool invert) {
  std::string escaped;
  for (const char c : regex) escaped += c == '\\' ? "\\\\" : std::string(1, c);
  return fmt::format(
      R"({{"type":"Sequence","pretokenizers":[{{"type":"Split","pattern":{{"Regex":"{}"}},)"
      R"("behavior":"{}","invert":{}}},{}]}})",
      escaped, behavior, invert, byte_level(false, false));
}

VocabFamily gpt2(bool prefix_space) {
  return {.pipeline = {"", byte_level(prefix_space, true), byte_level(true, true)},
          .eos = "<|endoftext|>"};
}

VocabFamily family_of(const FolderConfig& config) {
  const std::string name = config.class_name();
  const bool prefix_space = config.add_prefix_space.value_or(false);
  if (name == "Qwen2Tokenizer") {
    return {.pipeline = {R"({"type":"NFC"})", split_then_bytes(kQwen2Regex, "Isolated", false),
                         byte_level(true, true)},
            .eos = "<|endoftext|>"};
  }
  if (name == "RobertaTokenizer" || name == "BartTokenizer" || name == "LongformerTokenizer") {
    VocabFamily family = gpt2(prefix_space);
    family.wraps = true;
    family.cls = "<s>";
    family.sep = family.eos = "</s>";
    return family;
  }
  if (name == "CLIPTokenizer") {
    const std::string regex = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
    return {.pipeline = {R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace",)"
                         R"("pattern":{"Regex":"\\s+"},"content":" "},{"type":"Lowercase"}]})",
                         split_then_bytes(regex, "Removed", true),
                         fmt::format(R"({{"type":"Sequence","decoders":[{},{{"type":"Replace",)"
                                     R"("pattern":{{"String":"</w>"}},"content":" "}},)"
                                     R"({{"type":"Strip","content":" ","start":0,"stop":1}}]}})",
                                     byte_level(true, true))},
            .end_of_word_suffix = "</w>",
            .wraps = true,
            .cls = "<|startoftext|>",
            .sep = "<|endoftext|>",
            .eos = "<|endoftext|>"};
  }
  return gpt2(prefix_space);
}

void read_merge_lines(std::string_view text, const std::string& source, MergeReader& reader) {
  each_line(text, [&](std::string_view line, size_t number) {
    if (line.empty() || (number == 1 && line.starts_with("#version"))) return;
    const size_t space = line.find(' ');
    if (space == line.npos || space == 0 || line.find(' ', space + 1) != line.npos) {
      refuse(source, "two tokens a line",
             fmt::format("'{}' in line {}", line.substr(0, 60), number));
    }
    reader.add(line.substr(0, space), line.substr(space + 1));
  });
}

// Texts between the two tokens, as the configuration names them.
void wrap(const std::optional<std::string>& cls, std::string_view usual_cls,
          const std::optional<std::string>& sep, std::string_view usual_sep,
          TokenizerImpl& tokenizer) {
  const auto first = tokenizer.id_of(cls ? std::string_view(*cls) : usual_cls);
  const auto last = tokenizer.id_of(sep ? std::string_view(*sep) : usual_sep);
  if (!first || !last) {
    refuse(tokenizer.source, fmt::format("the tokens {} and {}", usual_cls, usual_sep),
           "a vocabulary without them");
  }
  tokenizer.prefix.push_back(*first);
  tokenizer.suffix.push_back(*last);
}

}  // namespace

void read_vocab_and_merges(std::string_view vocab, std::string_view merges,
                           const FolderConfig& config, TokenizerImpl& tokenizer) {
  const VocabFamily family = family_of(config);
  read_pipeline(family.pipeline, tokenizer);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parser.parse(vocab.data(), vocab.size()).get(root);
  if (error != simdjson::SUCCESS) refuse(tokenizer.source, "JSON", simdjson::error_message(error));
  read_vocabulary(JsonView(root, tokenizer.source), tokenizer.vocabulary);

  BpeOptions options;
  options.byte_level = true;
  options.end_of_word_suffix = family.end_of_word_suffix;
  if (config.main.unk_token) options.unk_id = tokenizer.vocabulary.find(*config.main.unk_token);
  const std::string where = "the merges.txt beside " + tokenizer.source;
  const auto lines = static_cast<size_t>(std::count(merges.begin(), merges.end(), '\n'));
  MergeReader reader(where, options, tokenizer.vocabulary, lines + 1);
  read_merge_lines(merges, where, reader);
  tokenizer.cutter = reader.take_cutter();
  tokenizer.model =
      std::make_unique<BpeModel>(tokenizer.vocabulary, reader.take_table(), std::move(options));
  // The end of a text, without any configuration, too.
  if (const auto eos = tokenizer.vocabulary.find(family.eos)) {
    put_added_token({.id = *eos, .content = std::string(family.eos), .special = true}, tokenizer);
    tokenizer.eos = eos;
  }
  add_configured_tokens(config, tokenizer);
  if (!family.wraps) return;
  const bool clip = !family.end_of_word_suffix.empty();
  wrap(clip ? config.main.bos_token : config.cls_token, family.cls,
       clip ? config.main.eos_token : config.sep_token, family.sep, tokenizer);
}

void read_vocab_lines(std::string_view text, const FolderConfig& config, TokenizerImpl& tokenizer) {
  const bool lowercase = config.do_lower_case.value_or(true);
  read_pipeline(
      {fmt::format(R"({{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":{},)"
                   R"("strip_accents":{},"lowercase":{}}})",
                   config.tokenize_chinese_chars.value_or(true),
                   config.strip_accents.value_or(lowercase), lowercase),
       R"({"type":"BertPreTokenizer"})", R"({"type":"WordPiece","prefix":"##","cleanup":true})"},
      tokenizer);
  std::vector<std::string_view> tokens;
  each_line(text, [&](std::string_view line, size_t) { tokens.push_back(line); });
  if (tokens.empty() || tokens.size() > static_cast<size_t>(kMaxId)) {
    refuse(tokenizer.source, fmt::format("1 to {} tokens", kMaxId),
           fmt::format("{}", tokens.size()));
  }
  tokenizer.vocabulary.reserve(tokens.size(), text.size(), static_cast<int32_t>(tokens.size()) - 1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto added = tokenizer.vocabulary.add(tokens[id], static_cast<int32_t>(id));
    if (added != Vocabulary::Added::kYes) {
      refuse(tokenizer.source, "every token once",
             fmt::format("'{}' in line {}", tokens[id], id + 1));
    }
  }
  const auto unk = tokenizer.vocabulary.find(config.main.unk_token.value_or("[UNK]"));
  if (!unk) refuse(tokenizer.source, "the token [UNK]", "a vocabulary without it");
  WordPieceOptions options;
  options.unk_id = *unk;
  tokenizer.model = std::make_unique<WordPieceModel>(tokenizer.vocabulary, std::move(options));
  for (const char* name : {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"}) {
    const auto id = tokenizer.vocabulary.find(name);
    if (id) put_added_token({.id = *id, .content = name, .special = true}, tokenizer);
  }
  add_configured_tokens(config, tokenizer);
  wrap(config.cls_token, "[CLS]", config.sep_token, "[SEP]", tokenizer);
}

}  // namespace qianli::text
