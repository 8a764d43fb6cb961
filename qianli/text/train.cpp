// Training: options, and the files a trained tokenizer is written as.
#include "qianli/text/train.h"

#include <fmt/core.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/text/bpe_model.h"
#include "qianli/text/pattern.h"
#include "qianli/text/special_names.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

constexpr int64_t kMaxVocabulary = int64_t{1} << 22;

void check_options(const TrainOptions& options) {
  const auto specials = static_cast<int64_t>(options.special_tokens.size());
  if (options.vocab_size < 256 + specials || options.vocab_size > kMaxVocabulary) {
    throw ConfigError(
        "tokenizer",
        fmt::format("expected a vocabulary of {} (256 bytes and {} special tokens) to {}, got {}",
                    256 + specials, specials, kMaxVocabulary, options.vocab_size));
  }
  std::set<std::string> seen;
  for (const auto& token : options.special_tokens) {
    const bool fits =
        !token.empty() && token.size() <= 256 && valid_utf8_prefix(token) == token.size();
    if (!fits) {
      throw ConfigError(
          "tokenizer",
          fmt::format("expected special tokens of 1 to 256 bytes of UTF-8, got '{}'", token));
    }
    // A single character of the alphabet is the token of a byte already.
    const Decoded first = decode_char(token.data());
    const bool byte = first.size == token.size() && byte_of_level_char(first.code) >= 0;
    if (byte || !seen.insert(token).second) {
      throw ConfigError("tokenizer",
                        fmt::format("expected special tokens of their own, got '{}' {}", token,
                                    byte ? "which is a byte's token" : "twice"));
    }
  }
}

std::string json_string(std::string_view text) { return Json(text).dump(); }

std::string added_tokens_json(const TrainOptions& options) {
  std::string out;
  for (size_t i = 0; i < options.special_tokens.size(); ++i) {
    out += fmt::format(
        "{}\n    {{\"id\": {}, \"content\": {}, \"single_word\": false, \"lstrip\": false, "
        "\"rstrip\": false, \"normalized\": false, \"special\": true}}",
        i == 0 ? "" : ",", i, json_string(options.special_tokens[i]));
  }
  return out;
}

std::string pre_tokenizer_json(TrainPattern pattern) {
  constexpr std::string_view kByteLevel =
      R"({{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": {}}})";
  if (pattern == TrainPattern::kGpt2) return fmt::format(kByteLevel, true);
  return fmt::format(
      R"({{"type": "Sequence", "pretokenizers": [{{"type": "Split", "pattern": {{"Regex": {}}}, )"
      R"("behavior": "Isolated", "invert": false}}, {}]}})",
      json_string(kLlama3Regex), fmt::format(kByteLevel, false));
}

// The tokens in the order of their ids: special tokens, bytes, merges.
std::vector<std::string> spell_tokens(const TrainOptions& options,
                                      const std::vector<TrainedMerge>& merges) {
  std::vector<std::string> tokens = options.special_tokens;
  const size_t first = tokens.size();
  for (const unsigned char byte : bytes_in_alphabet_order()) {
    append_utf8(tokens.emplace_back(), byte_level_char(byte));
  }
  for (const TrainedMerge& merge : merges) {
    const auto token = tokens[first + static_cast<size_t>(merge.left)] +
                       tokens[first + static_cast<size_t>(merge.right)];
    tokens.push_back(token);
  }
  return tokens;
}

std::string tokenizer_json(const TrainOptions& options, const std::vector<TrainedMerge>& merges) {
  const auto tokens = spell_tokens(options, merges);
  const size_t first = options.special_tokens.size();
  std::string out = "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n";
  out += fmt::format("  \"added_tokens\": [{}\n  ],\n  \"normalizer\": null,\n",
                     added_tokens_json(options));
  out += fmt::format("  \"pre_tokenizer\": {},\n", pre_tokenizer_json(options.pattern));
  out +=
      "  \"post_processor\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
      "\"trim_offsets\": false, "
      "\"use_regex\": true},\n";
  out +=
      "  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": "
      "true, "
      "\"use_regex\": true},\n";
  out +=
      "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
      "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n"
      "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n    \"ignore_merges\": false,\n"
      "    \"vocab\": {";
  for (size_t id = 0; id < tokens.size(); ++id) {
    out += fmt::format("{}\n      {}: {}", id == 0 ? "" : ",", json_string(tokens[id]), id);
  }
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < merges.size(); ++i) {
    out += fmt::format("{}\n      [{}, {}]", i == 0 ? "" : ",",
                       json_string(tokens[first + static_cast<size_t>(merges[i].left)]),
                       json_string(tokens[first + static_cast<size_t>(merges[i].right)]));
  }
  return out + "\n    ]\n  }\n}\n";
}

template <size_t N>
Json first_of(const std::string_view (&names)[N], const std::vector<std::string>& tokens) {
  for (const auto name : names) {
    if (std::find(tokens.begin(), tokens.end(), name) != tokens.end()) return std::string(name);
  }
  return nullptr;
}

std::string config_json(const TrainOptions& options) {
  const auto& tokens = options.special_tokens;
  const OrderedJson config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                              {"bos_token", first_of(kBosNames, tokens)},
                              {"eos_token", first_of(kEosNames, tokens)},
                              {"pad_token", first_of(kPadNames, tokens)},
                              {"unk_token", nullptr},
                              {"model_max_length", 1e30},
                              {"clean_up_tokenization_spaces", false}};
  return config.dump(2) + "\n";
}

}  // namespace

TrainReport train_byte_level_bpe(const TrainOptions& options, std::span<const fs::path> files,
                                 const fs::path& folder) {
  check_options(options);
  TrainReport report;
  const WordCounts words = count_words(options, files, report.text_bytes);
  report.distinct_words = static_cast<int64_t>(words.size());
  const auto fixed = static_cast<int64_t>(256 + options.special_tokens.size());
  const auto merges = learn_merges(words, options.vocab_size - fixed, options.min_frequency);
  report.vocab_size = fixed + static_cast<int64_t>(merges.size());
  if (report.vocab_size < options.vocab_size) {
    log::warn("tokenizer", "the text has pairs for {} tokens only, fewer than the {} asked for",
              report.vocab_size, options.vocab_size);
  }
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw_file_error(FileRole::kData, fmt::format("cannot make the folder {}: {}", folder.string(),
                                                  error.message()));
  }
  write_file_atomically(folder / "tokenizer_config.json", config_json(options), FileRole::kData);
  write_file_atomically(folder / "tokenizer.json", tokenizer_json(options, merges),
                        FileRole::kData);
  return report;
}

}  // namespace qianli::text
