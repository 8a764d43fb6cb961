// Training of byte-level BPE tokenizers: words are counted in parallel, then the most frequent pair
// of neighbours is merged, again and again. The same files and options give the same tokenizer on
// every machine and with any number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qianli/base/file.h"

namespace qianli::text {

// How text is cut into words, across which nothing merges.
enum class TrainPattern { kGpt2, kLlama3 };

struct TrainOptions {
  int64_t vocab_size = 32000;  // special tokens, 256 bytes and merges together
  // Get the first ids. Those with usual names ("<s>", "</s>", "<|endoftext|>", "<pad>", ...) become
  // bos, eos and pad of tokenizer_config.json.
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  TrainPattern pattern = TrainPattern::kLlama3;
  int64_t min_frequency = 2;  // pairs seen less often do not merge
  int threads = 0;            // 0: all cores given to the process
};

struct TrainReport {
  int64_t vocab_size = 0;  // may be smaller than asked when the text has no more pairs
  int64_t text_bytes = 0;
  int64_t distinct_words = 0;
};

// Reads text files, and files named *.jsonl, whose lines are objects with the key "text"; writes
// tokenizer.json and tokenizer_config.json into `folder`, each whole or not at all. Throws
// ConfigError for impossible options, DataError for unreadable input.
TrainReport train_byte_level_bpe(const TrainOptions& options, std::span<const fs::path> files,
                                 const fs::path& folder);

// The steps, for tests.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
using WordCounts = std::unordered_map<std::string, int64_t, StringHash, std::equal_to<>>;

WordCounts count_words(const TrainOptions& options, std::span<const fs::path> files,
                       int64_t& text_bytes);
// One merge: token 256 + i is left + right; tokens below 256 are the bytes in the order of the
// byte-level alphabet.
struct TrainedMerge {
  int32_t left, right;
};
std::vector<TrainedMerge> learn_merges(const WordCounts& words, int64_t most,
                                       int64_t min_frequency);
// The bytes in that order: by code point of their character.
std::vector<unsigned char> bytes_in_alphabet_order();

}  // namespace qianli::text
