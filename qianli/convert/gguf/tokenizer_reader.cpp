// From the keys of a GGUF file to tokenizer files.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/convert/gguf/tokenizer.h"

namespace qianli::convert {
namespace {

using formats::GgufFile;
using model::CompanionFile;

constexpr const char* kPrefix = "tokenizer.ggml.";
constexpr size_t kMaxTokens = size_t{1} << 24;

std::vector<Piece> pieces_of(const GgufFile& file) {
  auto texts = file.texts("tokenizer.ggml.tokens").value_or(std::vector<std::string>());
  const auto scores = file.numbers("tokenizer.ggml.scores").value_or(std::vector<double>());
  const auto types = file.integers("tokenizer.ggml.token_type").value_or(std::vector<int64_t>());
  const bool fits = texts.size() <= kMaxTokens &&
                    (scores.empty() || scores.size() == texts.size()) &&
                    (types.empty() || types.size() == texts.size());
  if (!fits) {
    throw CheckpointError("convert",
                          fmt::format("{}: expected a score and a type for each of {} tokens, got "
                                      "{} and {}",
                                      file.source(), texts.size(), scores.size(), types.size()));
  }
  std::vector<Piece> pieces;
  for (size_t id = 0; id < texts.size(); ++id) {
    const int64_t type = types.empty() ? 1 : std::clamp<int64_t>(types[id], 1, 6);
    pieces.push_back({std::move(texts[id]), scores.empty() ? 0.0f : static_cast<float>(scores[id]),
                      static_cast<GgufToken>(type)});
  }
  return pieces;
}

bool is_added(const Piece& piece) {
  return piece.type == GgufToken::kControl || piece.type == GgufToken::kUserDefined ||
         piece.type == GgufToken::kUnknown;
}

OrderedJson added_token(const Piece& piece) {
  return {{"content", piece.text}, {"single_word", false},
          {"lstrip", false},       {"rstrip", false},
          {"normalized", false},   {"special", piece.type != GgufToken::kUserDefined}};
}

OrderedJson step_of(std::string_view step) {
  if (step == "Digits") return {{"type", "Digits"}, {"individual_digits", true}};
  if (step == "ByteLevel" || step == "Bytes") {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", false},
            {"trim_offsets", true},
            {"use_regex", step == "ByteLevel"}};
  }
  return {{"type", "Split"},
          {"pattern", {{"Regex", step}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

// A text between special tokens, as the file asks for them.
OrderedJson around(const GgufFile& file, const std::vector<Piece>& pieces) {
  OrderedJson single = OrderedJson::array(), special = OrderedJson::object();
  const auto put = [&](const char* name) {
    const bool wanted = file.boolean(fmt::format("{}add_{}_token", kPrefix, name)).value_or(false);
    const auto id = file.integer(fmt::format("{}{}_token_id", kPrefix, name));
    if (!wanted || !id || *id < 0 || *id >= std::ssize(pieces)) return;
    const std::string& token = pieces[static_cast<size_t>(*id)].text;
    single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    special[token] = {{"id", token}, {"ids", {*id}}, {"tokens", {token}}};
  };
  put("bos");
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  put("eos");
  if (special.empty()) return nullptr;
  OrderedJson pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

// Behind the last token that is not added. Added ones before it are the model's as well: a token
// that is added alone gets the next number behind the model's.
size_t end_of_model(const std::vector<Piece>& pieces) {
  size_t end = pieces.size();
  while (end > 0 && (is_added(pieces[end - 1]) || pieces[end - 1].type == GgufToken::kUnused))
    --end;
  return end;
}

std::string byte_level_json(const GgufFile& file, const std::vector<Piece>& pieces,
                            const WordRule& rule) {
  OrderedJson json{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  json["added_tokens"] = OrderedJson::array();
  Json vocabulary = Json::object();  // look-up in an ordered one is linear
  const size_t model_size = end_of_model(pieces);
  for (size_t id = 0; id < pieces.size(); ++id) {
    const Piece& piece = pieces[id];
    if (piece.type == GgufToken::kUnused) continue;
    if (id < model_size) vocabulary[piece.text] = id;
    if (!is_added(piece)) continue;
    OrderedJson token{{"id", id}};
    token.update(added_token(piece));
    json["added_tokens"].push_back(std::move(token));
  }
  json["normalizer"] = rule.nfc ? OrderedJson::object({{"type", "NFC"}}) : OrderedJson();
  OrderedJson steps = OrderedJson::array();
  for (const std::string_view step : rule.steps) steps.push_back(step_of(step));
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", steps}};
  json["post_processor"] = around(file, pieces);
  json["decoder"] = step_of("ByteLevel");
  json["model"] = {
      {"type", "BPE"},
      {"dropout", nullptr},
      {"unk_token", nullptr},
      {"continuing_subword_prefix", nullptr},
      {"end_of_word_suffix", nullptr},
      {"fuse_unk", false},
      {"byte_fallback", false},
      {"ignore_merges", rule.ignore_merges},
      {"vocab", OrderedJson()},
      {"merges", file.texts("tokenizer.ggml.merges").value_or(std::vector<std::string>())}};
  // Two kinds of objects: the vocabulary's text stands in for its place.
  std::string text = json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  const std::string place = "\"vocab\":null";
  const size_t at = text.rfind(place);
  return text.replace(
      at, place.size(),
      "\"vocab\":" + vocabulary.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::optional<CompanionFile> byte_level(const GgufFile& file, const std::vector<Piece>& pieces) {
  const std::string name = file.text("tokenizer.ggml.pre").value_or("default");
  for (const WordRule& rule : word_rules()) {
    if (std::ranges::find(rule.names, name) != rule.names.end()) {
      return CompanionFile{"tokenizer.json", byte_level_json(file, pieces, rule)};
    }
  }
  log::warn("convert", "{}: cutting words as '{}' is not known here: written without a tokenizer",
            file.source(), name.substr(0, 100));
  return std::nullopt;
}

CompanionFile sentencepiece(const GgufFile& file, std::vector<Piece> pieces) {
  const auto unknown = file.integer("tokenizer.ggml.unknown_token_id");
  if (unknown && *unknown >= 0 && *unknown < std::ssize(pieces)) {
    pieces[static_cast<size_t>(*unknown)].type = GgufToken::kUnknown;
  }
  const auto flag = [&](const char* key) { return file.boolean(key).value_or(true); };
  return {"tokenizer.model", sentencepiece_model(pieces, flag("tokenizer.ggml.add_space_prefix"),
                                                 flag("tokenizer.ggml.remove_extra_whitespaces"))};
}

std::optional<CompanionFile> main_file(const GgufFile& file, const std::vector<Piece>& pieces) {
  if (auto json = file.text("tokenizer.huggingface.json")) {
    return CompanionFile{"tokenizer.json", std::move(*json)};
  }
  const auto kind = file.text("tokenizer.ggml.model");
  if (!kind || pieces.empty()) return std::nullopt;
  if (*kind == "gpt2") return byte_level(file, pieces);
  if (*kind == "llama") return sentencepiece(file, pieces);
  log::warn("convert", "{}: a tokenizer of the kind '{}' is not known here: written without one",
            file.source(), kind->substr(0, 100));
  return std::nullopt;
}

std::string settings(const GgufFile& file, const std::vector<Piece>& pieces, bool in_pieces) {
  OrderedJson config;
  for (const char* name : {"bos", "eos", "padding", "unknown"}) {
    const auto id = file.integer(fmt::format("{}{}_token_id", kPrefix, name));
    if (!id || *id < 0 || *id >= std::ssize(pieces)) continue;
    const std::string key = std::string_view(name) == "padding"   ? "pad"
                            : std::string_view(name) == "unknown" ? "unk"
                                                                  : name;
    config[key + "_token"] = pieces[static_cast<size_t>(*id)].text;
  }
  for (const char* name : {"bos", "eos"}) {
    if (const auto put = file.boolean(fmt::format("{}add_{}_token", kPrefix, name))) {
      config[fmt::format("add_{}_token", name)] = *put;
    }
  }
  config["tokenizer_class"] = in_pieces ? "LlamaTokenizer" : "PreTrainedTokenizerFast";
  if (in_pieces) {
    OrderedJson added = OrderedJson::object();
    for (size_t id = 0; id < pieces.size(); ++id) {
      if (is_added(pieces[id])) added[std::to_string(id)] = added_token(pieces[id]);
    }
    config["added_tokens_decoder"] = added;
    config["legacy"] = true;
  }
  if (const auto text = file.text("tokenizer.chat_template")) config["chat_template"] = *text;
  return config.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

}  // namespace

std::vector<CompanionFile> tokenizer_files(const GgufFile& file) {
  const std::vector<Piece> pieces = pieces_of(file);
  auto main = main_file(file, pieces);
  if (!main) return {};
  const bool in_pieces = main->name == "tokenizer.model";
  std::vector<CompanionFile> files{std::move(*main)};
  files.push_back({"tokenizer_config.json", settings(file, pieces, in_pieces)});
  return files;
}

}  // namespace qianli::convert
