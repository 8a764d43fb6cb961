// Samples: what a data set is to training, whatever it is made of.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace qianli::data {

// Filler after the end of a sample that is too short; never a token id.
inline constexpr int64_t kPadding = -1;

// A numbered list of token sequences of one length, the same at every call and on every rank. Safe
// to read from many threads.
class SampleSet {
 public:
  virtual ~SampleSet() = default;
  virtual int64_t size() const = 0;
  // Tokens of one sample: the model's input and one more, because labels are the tokens shifted by
  // one.
  virtual int64_t sample_length() const = 0;
  // Fills `out` (sample_length() values); the end of a short sample is kPadding. DataError where
  // the data behind the index is damaged.
  virtual void read(int64_t index, std::span<int64_t> out) const = 0;
  // Tells whether another opening gives the same samples in the same order: "DATA-ORDER", a digest
  // of the data and of what was asked of them, and one of the order. Kept in checkpoints.
  virtual std::string fingerprint() const = 0;
  // Names the corpus a sample comes from, for error messages.
  virtual std::string origin(int64_t index) const = 0;
};

// Whether two fingerprints are of the same data, asked for in the same way. Their orders differ
// where the number of samples or the weights of the corpora do.
inline bool same_data(std::string_view a, std::string_view b) {
  return a.substr(0, a.find('-')) == b.substr(0, b.find('-'));
}

}  // namespace qianli::data
