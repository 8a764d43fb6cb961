#include "qianli/data/gpt_order.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();

std::vector<double> numbers_in(std::string_view text) {
  constexpr std::string_view kNumber = ".0123456789";
  std::vector<double> numbers;
  for (size_t at = text.find_first_of(kNumber); at != std::string_view::npos;) {
    size_t end = text.find_first_not_of(kNumber, at);
    if (end == std::string_view::npos) end = text.size();
    const std::string digits(text.substr(at, end - at));
    char* stop = nullptr;
    const double value = std::strtod(digits.c_str(), &stop);
    if (*stop != '\0') {
      throw ConfigError("data", fmt::format("expected numbers in data.split, got '{}'", digits),
                        "write it like 949,50,1");
    }
    numbers.push_back(value);
    at = text.find_first_of(kNumber, end);
  }
  return numbers;
}

// Multiplication that cannot pass unnoticed beyond 64 bits.
int64_t checked_product(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) {
    throw ConfigError("data",
                      fmt::format("expected fewer than 2^63 tokens in all, got {} x {}", a, b),
                      "lower the number of steps or the sequence length");
  }
  return product;
}

std::vector<int32_t> document_index(const GptOrderRequest& request, const GptEpochs& plan,
                                    RandomState& random) {
  const int64_t documents = request.range.end - request.range.begin;
  std::vector<int32_t> index(static_cast<size_t>(checked_product(documents, plan.epochs)));
  for (size_t i = 0; i < index.size(); ++i) {
    index[i] = static_cast<int32_t>(request.range.begin + static_cast<int64_t>(i) % documents);
  }
  std::span<int32_t> all(index);
  if (!plan.separate_last) {
    random.shuffle(all);
    return index;
  }
  const auto first = static_cast<size_t>(documents * (plan.epochs - 1));
  random.shuffle(all.first(first));
  random.shuffle(all.subspan(first));
  return index;
}

template <class T>
IndexArray sample_index(const GptOrderRequest& request, std::span<const int32_t> documents,
                        int64_t samples) {
  const int64_t extra = request.extra_token ? 1 : 0;
  const int64_t last = static_cast<int64_t>(documents.size()) - 1;
  std::vector<T> rows;
  rows.reserve(static_cast<size_t>(2 * (samples + 1)));
  int64_t place = 0, offset = 0;
  const auto emit = [&] {
    rows.push_back(static_cast<T>(place));
    rows.push_back(static_cast<T>(offset));
  };
  emit();
  for (int64_t sample = 0; sample < samples; ++sample) {
    int64_t remaining = request.sequence_length + extra;
    while (remaining > 0) {
      const int64_t length = request.lengths[documents[place]];
      const int64_t available = length - offset;
      if (available >= remaining) {
        // The next sample begins with this one's last token.
        offset += remaining - extra;
        break;
      }
      remaining -= available;
      if (place == last) {
        offset = length - extra;
        break;
      }
      ++place;
      offset = 0;
    }
    emit();
  }
  return IndexArray::own(std::move(rows), 2);
}

template <class T>
IndexArray shuffle_index(const GptEpochs& plan, int64_t samples, RandomState& random) {
  std::vector<T> index(static_cast<size_t>(samples));
  std::iota(index.begin(), index.end(), T{0});
  std::span<T> all(index);
  if (!plan.separate_last) {
    random.shuffle(all);
  } else {
    const auto first = static_cast<size_t>(plan.samples_before_last);
    random.shuffle(all.first(first));
    random.shuffle(all.subspan(first));
  }
  return IndexArray::own(std::move(index));
}

}  // namespace

SplitFractions parse_split(std::string_view text) {
  std::vector<double> parts = numbers_in(text);
  if (parts.empty() || parts.size() > 3) {
    throw ConfigError("data",
                      fmt::format("expected one to three numbers in data.split, got '{}'", text),
                      "write train, validation and test shares like 949,50,1");
  }
  parts.resize(3, 0.0);
  const double sum = parts[0] + parts[1] + parts[2];
  if (!(sum > 0) || !std::isfinite(sum)) {
    throw ConfigError("data", fmt::format("expected a split with a positive sum, got '{}'", text),
                      "write train, validation and test shares like 949,50,1");
  }
  SplitFractions fractions;
  double edge = 0;
  for (size_t i = 0; i < 3; ++i) {
    const double next = edge + parts[i] / sum;
    if (next > edge) fractions[i] = SplitFraction{edge, next};
    edge = next;
  }
  return fractions;
}

SequenceRange sequences_of(const SplitFraction& fraction, int64_t sequences) {
  const auto count = static_cast<double>(sequences);
  const auto at = [&](double edge) {
    // Edges may exceed 1 in the last bit.
    return std::min(sequences, static_cast<int64_t>(std::nearbyint(edge * count)));
  };
  return {at(fraction.begin), at(fraction.end)};
}

GptEpochs plan_epochs(const GptOrderRequest& request) {
  GptEpochs plan;
  for (int64_t i = request.range.begin; i < request.range.end; ++i) {
    plan.tokens_per_epoch += request.lengths[static_cast<size_t>(i)];
  }
  if (!request.num_samples || plan.tokens_per_epoch == 0) return plan;
  const int64_t extra = request.extra_token ? 1 : 0;
  const int64_t wanted = checked_product(*request.num_samples, request.sequence_length) + extra;
  plan.epochs =
      std::max<int64_t>(1, wanted / plan.tokens_per_epoch + (wanted % plan.tokens_per_epoch != 0));
  if (plan.epochs == 1) return plan;
  const int64_t length = request.sequence_length;
  plan.samples_before_last =
      (checked_product(plan.epochs - 1, plan.tokens_per_epoch) - extra) / length;
  const int64_t per_epoch = (plan.tokens_per_epoch - extra) / length;
  const int64_t from_last = *request.num_samples - plan.samples_before_last;
  plan.separate_last = from_last < static_cast<int64_t>(0.80 * static_cast<double>(per_epoch));
  return plan;
}

int64_t count_samples(const GptOrderRequest& request, const GptEpochs& plan) {
  const int64_t extra = request.extra_token ? 1 : 0;
  const int64_t usable = checked_product(plan.epochs, plan.tokens_per_epoch) - extra;
  if (usable < 0) return 0;
  if (request.drop_last_partial) return usable / request.sequence_length;
  // The reference divides in float32, which changes the count beyond 2^24 tokens.
  return static_cast<int64_t>(
      std::ceil(static_cast<float>(usable) / static_cast<float>(request.sequence_length)));
}

GptOrder build_gpt_order(const GptOrderRequest& request) {
  if (request.sequence_length < 1) {
    throw ConfigError("data", fmt::format("expected data.sequence_length of at least 1, got {}",
                                          request.sequence_length));
  }
  const auto sequences = static_cast<int64_t>(request.lengths.size());
  if (request.range.begin < 0 || request.range.end > sequences || sequences > kMaxInt32) {
    throw DataError("data", fmt::format("expected sequences within [0, {}), got [{}, {})",
                                        std::min(sequences, kMaxInt32), request.range.begin,
                                        request.range.end));
  }
  const GptEpochs plan = plan_epochs(request);
  if (plan.tokens_per_epoch == 0) {
    throw DataError("data",
                    fmt::format("expected tokens in sequences [{}, {}), got none",
                                request.range.begin, request.range.end),
                    "give more text or another data.split");
  }
  RandomState random(request.seed);
  auto documents = document_index(request, plan, random);
  const int64_t samples = count_samples(request, plan);
  const int32_t longest = *std::max_element(request.lengths.begin(), request.lengths.end());
  const bool narrow =
      std::max<int64_t>(static_cast<int64_t>(documents.size()), longest) <= kMaxInt32;
  GptOrder order;
  order.sample = narrow ? sample_index<int32_t>(request, documents, samples)
                        : sample_index<int64_t>(request, documents, samples);
  const bool narrow_shuffle = samples < int64_t{std::numeric_limits<uint32_t>::max()} - 1;
  order.shuffle = narrow_shuffle ? shuffle_index<uint32_t>(plan, samples, random)
                                 : shuffle_index<int64_t>(plan, samples, random);
  order.document = IndexArray::own(std::move(documents));
  return order;
}

}  // namespace qianli::data
