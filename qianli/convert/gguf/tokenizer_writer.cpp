// From tokenizer files to the keys of a GGUF file.
#include <fmt/core.h>

#include <algorithm>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/convert/gguf/tokenizer.h"
#include "qianli/text/sentencepiece_file.h"

namespace qianli::convert {
namespace {

using formats::GgufMetadata;
using model::CompanionFile;

constexpr float kAddedScore = -1000.0f, kNoScore = -10000.0f;  // as llama.cpp's converter has them

const std::string* find_file(const std::vector<CompanionFile>& files, std::string_view name) {
  const auto found = std::ranges::find(files, name, &CompanionFile::name);
  return found == files.end() ? nullptr : &found->bytes;
}

// The tokens of a model, by id; places without one are "[PAD7]".
struct Tokens {
  explicit Tokens(int64_t count) {
    for (int64_t id = 0; id < count; ++id) {
      pieces.push_back({fmt::format("[PAD{}]", id), kNoScore, GgufToken::kUnused});
    }
  }
  // Ids behind the model's rows are left out: nothing could come of them.
  Piece* at(int64_t id) {
    if (id >= 0 && id < std::ssize(pieces)) return &pieces[static_cast<size_t>(id)];
    ++outside;
    return nullptr;
  }
  std::vector<Piece> pieces;
  int64_t outside = 0;
};

void put_tokens(const Tokens& tokens, bool scores, GgufMetadata& metadata) {
  std::vector<std::string> texts;
  std::vector<float> numbers;
  std::vector<int32_t> types;
  for (const Piece& piece : tokens.pieces) {
    texts.push_back(piece.text);
    numbers.push_back(piece.score);
    types.push_back(static_cast<int32_t>(piece.type));
  }
  metadata.emplace_back("tokenizer.ggml.tokens", std::move(texts));
  if (scores) metadata.emplace_back("tokenizer.ggml.scores", std::move(numbers));
  metadata.emplace_back("tokenizer.ggml.token_type", std::move(types));
  if (tokens.outside > 0) {
    log::warn("convert", "{} tokens behind the rows of the embedding are left out", tokens.outside);
  }
}

// "content" of an object, or the text itself.
std::string content_of(const Json& token) {
  if (token.is_string()) return token.get<std::string>();
  return token.is_object() ? token.value("content", std::string()) : std::string();
}

// Steps as WordRule has them; empty where one is none of them.
std::vector<std::string> word_steps(const Json& pre_tokenizer) {
  if (!pre_tokenizer.is_object()) return {};
  std::vector<Json> parts{pre_tokenizer};
  if (pre_tokenizer.at("type") == "Sequence") {
    parts = pre_tokenizer.at("pretokenizers").get<std::vector<Json>>();
  }
  std::vector<std::string> steps;
  for (const Json& part : parts) {
    const std::string type = part.at("type");
    if (type == "ByteLevel") {
      if (part.value("add_prefix_space", true)) return {};
      steps.emplace_back(part.value("use_regex", true) ? "ByteLevel" : "Bytes");
    } else if (type == "Digits" && part.value("individual_digits", false)) {
      steps.emplace_back("Digits");
    } else if (type == "Split" && part.at("behavior") == "Isolated" &&
               !part.value("invert", false) && part.at("pattern").contains("Regex")) {
      std::string step;
      for (const char c : part.at("pattern").at("Regex").get<std::string>()) {
        step += c == '\r' ? "\\r" : c == '\n' ? "\\n" : std::string(1, c);
      }
      steps.push_back(step);
    } else {
      return {};
    }
  }
  return steps;
}

std::string rule_name(const Json& tokenizer) {
  const auto steps = word_steps(tokenizer.value("pre_tokenizer", Json()));
  const bool ignores = tokenizer.at("model").value("ignore_merges", false);
  for (const WordRule& rule : word_rules()) {
    if (std::ranges::equal(rule.steps, steps) && rule.ignore_merges == ignores) {
      return std::string(rule.names.front());
    }
  }
  log::warn("convert",
            "llama.cpp has no name for the way in which the tokenizer cuts words: "
            "tokenizer.ggml.pre is 'default', and its tokens may differ");
  return "default";
}

std::vector<std::string> merges_of(const Json& model) {
  std::vector<std::string> merges;
  for (const Json& merge : model.at("merges")) {
    merges.push_back(merge.is_array()
                         ? merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>()
                         : merge.get<std::string>());
  }
  return merges;
}

void take_added(const Json& added, int64_t id, Tokens& tokens) {
  Piece* piece = tokens.at(id);
  if (piece == nullptr) return;
  const bool special = added.value("special", false);
  *piece = {content_of(added), kAddedScore,
            special ? GgufToken::kControl : GgufToken::kUserDefined};
}

void take_vocabulary(const Json& tokenizer, Tokens& tokens) {
  for (const auto& [token, id] : tokenizer.at("model").at("vocab").items()) {
    if (Piece* piece = tokens.at(id.get<int64_t>())) *piece = {token, 0, GgufToken::kNormal};
  }
}

void take_added_of(const Json& tokenizer, Tokens& tokens) {
  for (const Json& added : tokenizer.value("added_tokens", Json::array())) {
    take_added(added, added.at("id").get<int64_t>(), tokens);
  }
}

void byte_level(const Json& tokenizer, int64_t vocab_size, GgufMetadata& metadata) {
  Tokens tokens(vocab_size);
  take_vocabulary(tokenizer, tokens);
  take_added_of(tokenizer, tokens);
  metadata.emplace_back("tokenizer.ggml.model", std::string("gpt2"));
  metadata.emplace_back("tokenizer.ggml.pre", rule_name(tokenizer));
  put_tokens(tokens, false, metadata);
  metadata.emplace_back("tokenizer.ggml.merges", merges_of(tokenizer.at("model")));
}

// SentencePiece's BPE in a tokenizer.json. llama.cpp merges what makes the piece of the highest
// score first, so scores follow the ranks of the merges.
void pieces_of_json(const Json& tokenizer, int64_t vocab_size, GgufMetadata& metadata) {
  Tokens tokens(vocab_size);
  const Json& model = tokenizer.at("model");
  take_vocabulary(tokenizer, tokens);
  std::unordered_map<std::string, float> scores;
  float rank = 0;
  for (std::string merge : merges_of(model)) {
    std::erase(merge, ' ');
    scores.try_emplace(std::move(merge), -rank++);
  }
  for (Piece& piece : tokens.pieces) {
    if (piece.type != GgufToken::kNormal) continue;
    const auto score = scores.find(piece.text);
    piece.score = score != scores.end() ? score->second : -rank;  // characters, behind all merges
    const bool byte = piece.text.size() == 6 && piece.text.starts_with("<0x");
    if (byte) piece.type = GgufToken::kByte;
  }
  take_added_of(tokenizer, tokens);
  const Json normalizer = tokenizer.value("normalizer", Json());
  metadata.emplace_back("tokenizer.ggml.model", std::string("llama"));
  metadata.emplace_back("tokenizer.ggml.pre", std::string("default"));
  put_tokens(tokens, true, metadata);
  metadata.emplace_back("tokenizer.ggml.add_space_prefix",
                        normalizer.dump().find("Prepend") != std::string::npos);
}

void pieces_of_file(const std::string& bytes, const Json& config, int64_t vocab_size,
                    GgufMetadata& metadata) {
  const auto file = text::parse_sentencepiece(bytes, "tokenizer.model");
  using File = text::SentencePieceFile;
  if (file.model_type != File::ModelType::kBpe) {
    log::warn("convert", "GGUF has no tokenizer of tokenizer.model's kind: written without one");
    return;
  }
  Tokens tokens(vocab_size);
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const File::Piece& piece = file.pieces[id];
    if (Piece* place = tokens.at(static_cast<int64_t>(id))) {
      *place = {std::string(piece.text), piece.score, static_cast<GgufToken>(piece.type)};
    }
  }
  const Json decoder = config.value("added_tokens_decoder", Json::object());
  for (const auto& [id, added] : decoder.items()) {
    take_added(added, std::strtoll(id.c_str(), nullptr, 10), tokens);
  }
  const auto unknown =
      std::ranges::find(file.pieces, File::PieceType::kUnknown, &File::Piece::type);
  metadata.emplace_back("tokenizer.ggml.model", std::string("llama"));
  metadata.emplace_back("tokenizer.ggml.pre", std::string("default"));
  put_tokens(tokens, true, metadata);
  metadata.emplace_back("tokenizer.ggml.add_space_prefix", file.add_dummy_prefix);
  metadata.emplace_back("tokenizer.ggml.remove_extra_whitespaces", file.remove_extra_whitespaces);
  if (unknown != file.pieces.end()) {
    metadata.emplace_back("tokenizer.ggml.unknown_token_id",
                          static_cast<int64_t>(unknown - file.pieces.begin()));
  }
}

void put_template(const std::vector<CompanionFile>& files, const Json& config,
                  GgufMetadata& metadata) {
  std::string text;
  if (const std::string* file = find_file(files, "chat_template.jinja")) text = *file;
  const Json inside = config.value("chat_template", Json());
  if (text.empty() && inside.is_string()) text = inside.get<std::string>();
  for (const Json& one : inside.is_array() ? inside : Json::array()) {
    if (text.empty() && one.value("name", "") == "default") text = one.value("template", "");
  }
  if (!text.empty()) metadata.emplace_back("tokenizer.chat_template", text);
}

// What tokenizer_config.json says, else whether tokenizer.json puts the token in front.
void put_bos(const Json& config, const Json& tokenizer, GgufMetadata& metadata) {
  const Json said = config.value("add_bos_token", Json());
  const std::string bos = content_of(config.value("bos_token", Json()));
  if (said.is_boolean()) {
    metadata.emplace_back("tokenizer.ggml.add_bos_token", said.get<bool>());
  } else if (!bos.empty() && tokenizer.is_object()) {
    const std::string around = tokenizer.value("post_processor", Json()).dump();
    metadata.emplace_back("tokenizer.ggml.add_bos_token",
                          around.find(Json(bos).dump()) != std::string::npos);
  }
  const Json eos = config.value("add_eos_token", Json());
  if (eos.is_boolean()) metadata.emplace_back("tokenizer.ggml.add_eos_token", eos.get<bool>());
}

GgufMetadata metadata_of(const std::vector<CompanionFile>& files, int64_t vocab_size) {
  const std::string* json = find_file(files, "tokenizer.json");
  const std::string* pieces = find_file(files, "tokenizer.model");
  const std::string* settings = find_file(files, "tokenizer_config.json");
  const Json config =
      settings ? parse_json(*settings, "tokenizer_config.json", FileRole::kData) : Json::object();
  const Json tokenizer = json ? parse_json(*json, "tokenizer.json", FileRole::kData) : Json();
  GgufMetadata metadata;
  const bool bpe = json && tokenizer.at("model").value("type", "BPE") == "BPE";
  const bool fallback = bpe && tokenizer.at("model").value("byte_fallback", false);
  if (bpe && !fallback) {
    byte_level(tokenizer, vocab_size, metadata);
  } else if (pieces) {
    pieces_of_file(*pieces, config, vocab_size, metadata);
  } else if (bpe) {
    pieces_of_json(tokenizer, vocab_size, metadata);
  } else if (!files.empty()) {
    log::warn("convert",
              "no tokenizer.json or tokenizer.model of a kind that GGUF knows: written "
              "without a tokenizer");
  }
  if (metadata.empty()) return metadata;
  put_bos(config, tokenizer, metadata);
  put_template(files, config, metadata);
  if (json) metadata.emplace_back("tokenizer.huggingface.json", *json);
  return metadata;
}

}  // namespace

GgufMetadata tokenizer_metadata(const std::vector<CompanionFile>& files, int64_t vocab_size) {
  try {
    return metadata_of(files, vocab_size);
  } catch (const Json::exception& error) {
    throw DataError("convert", fmt::format("expected a tokenizer.json and tokenizer_config.json of "
                                           "transformers' form, got {}",
                                           error.what()));
  }
}

}  // namespace qianli::convert
