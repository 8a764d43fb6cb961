// The order of samples in a GPT corpus, identical to Megatron-core's GPTDataset (release 0.12,
// megatron/core/datasets/{gpt_dataset.py, helpers.cpp, blended_megatron_dataset_config.py}): the
// same seed reads the same tokens in the same order.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "qianli/data/index_array.h"

namespace qianli::data {

enum class Split { kTrain, kValidation, kTest };
inline constexpr std::string_view kSplitNames[] = {"train", "valid", "test"};

// A fraction of the sequences; absent when it covers nothing.
struct SplitFraction {
  double begin = 0;
  double end = 0;
};
using SplitFractions = std::array<std::optional<SplitFraction>, 3>;

// "949,50,1", "0.98/0.01/0.01": up to three numbers, normalised to sum 1. ConfigError when there is
// none, more than three, or only zeros.
SplitFractions parse_split(std::string_view text);

// Sequences [begin, end) of a corpus of `sequences`.
struct SequenceRange {
  int64_t begin = 0;
  int64_t end = 0;
};
SequenceRange sequences_of(const SplitFraction& fraction, int64_t sequences);

struct GptOrderRequest {
  std::span<const int32_t> lengths;    // tokens of each sequence of the whole corpus
  SequenceRange range;                 // the split's sequences
  int64_t sequence_length = 0;         // S, tokens a sample feeds to the model
  std::optional<int64_t> num_samples;  // wanted; none: exactly one epoch
  uint32_t seed = 1234;
  bool extra_token = true;        // samples hold S + 1 tokens: labels are tokens shifted by one
  bool drop_last_partial = true;  // false only for validation splits
};

// How often the corpus is walked.
struct GptEpochs {
  int64_t tokens_per_epoch = 0;
  int64_t epochs = 1;
  bool separate_last =
      false;  // the last epoch is shuffled by itself, since only little of it is needed
  int64_t samples_before_last = 0;
};
GptEpochs plan_epochs(const GptOrderRequest& request);
int64_t count_samples(const GptOrderRequest& request, const GptEpochs& plan);

// document: sequence numbers in reading order. sample: rows (place in document, offset in tokens),
// one more than samples; row k and k + 1 bound sample k. shuffle: which row the i-th sample is.
struct GptOrder {
  IndexArray document;
  IndexArray sample;
  IndexArray shuffle;
  int64_t size() const { return shuffle.size(); }
};
GptOrder build_gpt_order(const GptOrderRequest& request);

}  // namespace qianli::data
