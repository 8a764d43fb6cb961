// The models of tokenizer.json.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "qianli/text/merges.h"
#include "qianli/text/read_json.h"
#include "qianli/text/unicode.h"
#include "qianli/text/unigram_model.h"
#include "qianli/text/word_models.h"

namespace qianli::text {

void read_vocabulary(const JsonView& json, Vocabulary& vocabulary) {
  size_t count = 0, bytes = 0;
  int64_t largest = -1;
  for (const auto field : json.object()) {
    int64_t id = -1;
    if (field.value.get(id) != simdjson::SUCCESS || id < 0 || id > kMaxId) {
      json.refuse(fmt::format("ids from 0 to {}", kMaxId),
                  fmt::format("another for token '{}'", field.key));
    }
    ++count;
    bytes += field.key.size();
    largest = std::max(largest, id);
  }
  if (largest > static_cast<int64_t>(8 * count + 65536)) {
    json.refuse("ids without large gaps", fmt::format("id {} among {} tokens", largest, count));
  }
  vocabulary.reserve(count, bytes, static_cast<int32_t>(largest));
  for (const auto field : json.object()) {
    const int64_t id = field.value.get_int64().value_unsafe();
    const auto added = vocabulary.add(field.key, static_cast<int32_t>(id));
    if (added == Vocabulary::Added::kYes) continue;
    json.refuse("every token and id once", added == Vocabulary::Added::kIdTwice
                                               ? fmt::format("id {} twice", id)
                                               : fmt::format("token '{}' twice", field.key));
  }
}

namespace {

// How much less than the worst token an unknown character scores.
constexpr double kUnknownPenalty = 10;

std::optional<std::string> optional_string(const JsonView& json, std::string_view key) {
  const auto child = json.find(key);
  return child ? std::optional(std::string(child->string())) : std::nullopt;
}

// "a b", or ["a", "b"] in newer files. False for the "#version" line that old files carry.
bool read_merge(const JsonView& merges, simdjson::dom::element item, size_t index,
                std::array<std::string_view, 2>& pair) {
  std::string_view text;
  if (item.get(text) == simdjson::SUCCESS) {
    if (text.starts_with("#version")) return false;
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos) {
      merges.refuse("pairs of tokens", fmt::format("'{}' as number {}", text, index));
    }
    pair = {text.substr(0, space), text.substr(space + 1)};
    return true;
  }
  simdjson::dom::array list;
  if (item.get(list) != simdjson::SUCCESS || list.size() != 2 ||
      list.at(0).get(pair[0]) != simdjson::SUCCESS ||
      list.at(1).get(pair[1]) != simdjson::SUCCESS) {
    merges.refuse("pairs of tokens", fmt::format("something else as number {}", index));
  }
  return true;
}

void read_merges(const JsonView& json, MergeReader& reader) {
  size_t index = 0;
  for (const auto item : json.array()) {
    std::array<std::string_view, 2> pair;
    if (read_merge(json, item, index++, pair)) reader.add(pair[0], pair[1]);
  }
}

size_t count_items(const JsonView& json) {
  size_t count = 0;
  for ([[maybe_unused]] const auto item : json.array()) ++count;
  return count;
}

bool has_all_bytes(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte) {
    if (!vocabulary.find(to_byte_level(std::string(1, static_cast<char>(byte))))) return false;
  }
  return true;
}

void read_bpe_model(const JsonView& json, TokenizerImpl& tokenizer) {
  // Dropout 0 drops nothing; any other makes ids a matter of chance.
  const auto dropout = json.find("dropout");
  if (dropout && dropout->number() != 0) json.unsupported("dropout");
  Vocabulary& vocabulary = tokenizer.vocabulary;
  read_vocabulary(json.at("vocab"), vocabulary);
  BpeOptions options;
  options.byte_level = tokenizer.pre_tokenizer.byte_level();
  options.byte_fallback = json.boolean_or("byte_fallback", false);
  options.fuse_unk = json.boolean_or("fuse_unk", false);
  options.ignore_merges = json.boolean_or("ignore_merges", false);
  options.continuing_subword_prefix = json.string_or("continuing_subword_prefix", "");
  options.end_of_word_suffix = json.string_or("end_of_word_suffix", "");
  if (const auto unk = optional_string(json, "unk_token")) {
    options.unk_id = vocabulary.find(*unk);
    const bool needed = !options.byte_level || !has_all_bytes(vocabulary);
    if (!options.unk_id && needed) {
      json.at("unk_token").refuse("a token of the vocabulary", fmt::format("'{}'", *unk));
    }
  }
  const auto merges = json.at("merges");
  const std::string where = merges.where();
  MergeReader reader(where, options, vocabulary, count_items(merges));
  read_merges(merges, reader);
  tokenizer.cutter = reader.take_cutter();
  tokenizer.model = std::make_unique<BpeModel>(vocabulary, reader.take_table(), std::move(options));
}

int32_t required_token(const JsonView& json, std::string_view key, std::string_view otherwise,
                       const Vocabulary& vocabulary) {
  const auto name = json.string_or(key, otherwise);
  const auto id = vocabulary.find(name);
  if (!id) json.refuse(fmt::format("{} among the tokens", key), fmt::format("'{}'", name));
  return *id;
}

void read_word_piece_model(const JsonView& json, TokenizerImpl& tokenizer) {
  read_vocabulary(json.at("vocab"), tokenizer.vocabulary);
  WordPieceOptions options;
  options.unk_id = required_token(json, "unk_token", "[UNK]", tokenizer.vocabulary);
  options.continuing_subword_prefix = json.string_or("continuing_subword_prefix", "##");
  if (const auto most = json.find("max_input_chars_per_word")) {
    options.max_input_chars_per_word = static_cast<size_t>(most->integer(0, 1 << 20));
  }
  tokenizer.model = std::make_unique<WordPieceModel>(tokenizer.vocabulary, std::move(options));
}

void read_word_level_model(const JsonView& json, TokenizerImpl& tokenizer) {
  read_vocabulary(json.at("vocab"), tokenizer.vocabulary);
  const auto unk = tokenizer.vocabulary.find(json.string_or("unk_token", "<unk>"));
  tokenizer.model = std::make_unique<WordLevelModel>(tokenizer.vocabulary, unk);
}

// The reference library reads "-7.2246540223433575" as 72246540223433575 / 1e16, which can be the
// neighbour of the nearest number. Where ways to write a piece are equally good, that decides.
double as_reference_reads(double score) {
  // The shortest digits that tell the number: what files hold. "7.224...", no exponent.
  const std::string text = fmt::format("{}", std::abs(score));
  const size_t point = std::min(text.find('.'), text.size());
  const size_t decimals = point == text.size() ? 0 : text.size() - point - 1;
  uint64_t digits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == point) continue;
    // An exponent, or more than 64 bits.
    if (text[i] < '0' || text[i] > '9' || i > 18) return score;
    digits = 10 * digits + static_cast<uint64_t>(text[i] - '0');
  }
  double power = 1;  // exact up to 1e22
  for (size_t i = 0; i < decimals; ++i) power *= 10;
  return std::copysign(static_cast<double>(digits) / power, score);
}

// [["<unk>", 0.0], ["a", -1.5], ...]: the id is the place in the list.
void read_unigram_model(const JsonView& json, TokenizerImpl& tokenizer) {
  const auto list = json.at("vocab");
  const size_t count = count_items(list);
  if (count == 0 || count > static_cast<size_t>(kMaxId)) {
    list.refuse(fmt::format("1 to {} tokens", kMaxId), fmt::format("{}", count));
  }
  tokenizer.vocabulary.reserve(count, 8 * count, static_cast<int32_t>(count) - 1);
  std::vector<UnigramModel::Piece> pieces;
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto item : list.array()) {
    simdjson::dom::array pair;
    std::string_view text;
    double score = 0;
    if (item.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(text) != simdjson::SUCCESS || pair.at(1).get(score) != simdjson::SUCCESS) {
      list.refuse("pairs of token and score", fmt::format("another as number {}", pieces.size()));
    }
    const auto id = static_cast<int32_t>(pieces.size());
    if (tokenizer.vocabulary.add(text, id) != Vocabulary::Added::kYes) {
      list.refuse("every token once", fmt::format("token '{}' twice", text));
    }
    pieces.push_back({text, id, as_reference_reads(score)});
    lowest = std::min(lowest, pieces.back().score);
  }
  UnigramOptions options;
  if (const auto unk = json.find("unk_id")) {
    options.unk_id = static_cast<int32_t>(unk->integer(0, static_cast<int64_t>(count) - 1));
  }
  options.byte_fallback = json.boolean_or("byte_fallback", false);
  options.unk_score = lowest - kUnknownPenalty;
  tokenizer.model = std::make_unique<UnigramModel>(tokenizer.vocabulary, pieces, options);
}

// Old files do not name the type.
std::string_view model_type(const JsonView& json) {
  if (const auto type = json.find("type")) return type->string();
  if (json.find("merges")) return "BPE";
  if (json.find("unk_id")) return "Unigram";
  return json.find("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

}  // namespace

void read_model(const JsonView& json, TokenizerImpl& tokenizer) {
  const auto type = model_type(json);
  if (type == "BPE") return read_bpe_model(json, tokenizer);
  if (type == "Unigram") return read_unigram_model(json, tokenizer);
  if (type == "WordPiece") return read_word_piece_model(json, tokenizer);
  if (type == "WordLevel") return read_word_level_model(json, tokenizer);
  json.unsupported(fmt::format("model '{}'", type));
}

}  // namespace qianli::text
