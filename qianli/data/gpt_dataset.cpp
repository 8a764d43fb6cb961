#include "qianli/data/gpt_dataset.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/data/digest.h"
#include "qianli/data/order_cache.h"

namespace qianli::data {
namespace {

[[noreturn]] void damaged(const fs::path& prefix, int64_t sample) {
  throw DataError(
      "data",
      fmt::format("the sample order of {} is damaged at sample {}", prefix.string(), sample),
      "delete the cache folder; it is made again");
}

[[noreturn]] void no_such_sample(int64_t index, int64_t size) {
  throw DataError("data", fmt::format("expected a sample in [0, {}), got {}", size, index));
}

SequenceRange range_of(const fs::path& prefix, Split split, const std::optional<std::string>& text,
                       int64_t sequences) {
  if (!text) return {0, sequences};
  const auto fraction = parse_split(*text)[static_cast<size_t>(split)];
  const SequenceRange range = fraction ? sequences_of(*fraction, sequences) : SequenceRange{};
  if (range.begin < range.end) return range;
  throw DataError(
      "data",
      fmt::format("expected documents for the {} split '{}' of {}, which has {}, got none",
                  kSplitNames[static_cast<size_t>(split)], *text, prefix.string(), sequences),
      "give this split a larger share in data.split, more documents, or a path of its own "
      "(data.validation_path)");
}

}  // namespace

GptDataset::GptDataset(const fs::path& prefix, formats::IndexedDataset corpus)
    : prefix_(prefix), corpus_(std::move(corpus)) {}

std::shared_ptr<const GptDataset> GptDataset::open(const fs::path& prefix, Split split,
                                                   std::optional<std::string> split_text,
                                                   std::optional<int64_t> num_samples,
                                                   const GptDatasetOptions& options) {
  std::shared_ptr<GptDataset> dataset(
      new GptDataset(prefix, formats::IndexedDataset::open(prefix)));
  dataset->sequence_length_ = options.sequence_length;
  const std::vector<int32_t> lengths = dataset->corpus_.lengths().to_vector();
  const GptOrderRequest request{
      .lengths = lengths,
      .range = range_of(prefix, split, split_text, static_cast<int64_t>(lengths.size())),
      .sequence_length = options.sequence_length,
      .num_samples = num_samples,
      .seed = options.seed,
      .drop_last_partial = split != Split::kValidation || options.drop_last_partial};
  dataset->asked_ = fmt::format("{} {} {} {}", request.range.begin, request.range.end,
                                request.sequence_length, request.seed);
  if (options.cache_folder.empty()) {
    dataset->order_ = build_gpt_order(request);
    return dataset;
  }
  dataset->order_ = cached_gpt_order(options.cache_folder,
                                     {.dataset_path = prefix.string(),
                                      .num_samples = num_samples,
                                      .split = split,
                                      .seed = options.seed,
                                      .sequence_length = options.sequence_length,
                                      .split_text = std::move(split_text),
                                      .tokenizer = options.tokenizer},
                                     request);
  return dataset;
}

std::vector<GptDataset::Piece> GptDataset::pieces(int64_t index) const {
  if (index < 0 || index >= size()) no_such_sample(index, size());
  const int64_t row = order_.shuffle[index];
  if (row < 0 || row + 1 >= order_.sample.rows()) damaged(prefix_, index);
  const int64_t first = order_.sample[2 * row], first_offset = order_.sample[2 * row + 1];
  const int64_t last = order_.sample[2 * row + 2], last_offset = order_.sample[2 * row + 3];
  if (first < 0 || first > last || last >= order_.document.size()) damaged(prefix_, index);
  std::vector<Piece> result;
  for (int64_t place = first; place <= last; ++place) {
    const int64_t sequence = order_.document[place];
    if (sequence < 0 || sequence >= static_cast<int64_t>(corpus_.size())) damaged(prefix_, index);
    const int64_t length = corpus_.lengths()[static_cast<size_t>(sequence)];
    const int64_t begin = place == first ? first_offset : 0;
    // The last piece ends one token beyond the offset at which the next sample begins.
    const int64_t end = place == last ? last_offset + 1 : length;
    if (begin < 0 || begin > end || end > length) damaged(prefix_, index);
    if (begin < end) result.push_back({sequence, begin, end - begin});
  }
  return result;
}

void GptDataset::read(int64_t index, std::span<int64_t> out) const {
  size_t filled = 0;
  for (const Piece& piece : pieces(index)) {
    const auto count = static_cast<size_t>(piece.tokens);
    if (filled + count > out.size()) damaged(prefix_, index);
    corpus_.sequence(static_cast<size_t>(piece.sequence), piece.offset, out.subspan(filled, count));
    filled += count;
  }
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(filled), out.end(), kPadding);
}

std::string GptDataset::fingerprint() const {
  const std::string data = fingerprint_of_file(prefix_.string() + ".bin") +
                           fingerprint_of_file(prefix_.string() + ".idx") + asked_;
  std::string order;
  for (const IndexArray* array : {&order_.document, &order_.sample, &order_.shuffle}) {
    order += xxh3_hex(array->bytes());
  }
  return xxh3_hex(data) + "-" + xxh3_hex(order);
}

BlendedDataset::BlendedDataset(std::vector<std::shared_ptr<const SampleSet>> parts,
                               BlendOrder order)
    : parts_(std::move(parts)), order_(std::move(order)) {
  for (int64_t i = 0; i < order_.size(); ++i) {
    const SampleSet& part = *parts_[static_cast<size_t>(order_.dataset[i])];
    if (order_.sample[i] < part.size()) continue;
    throw DataError(
        "data",
        fmt::format("expected more than {} samples from {} for its share of the blend, got {}",
                    order_.sample[i], part.origin(0), part.size()),
        "bring the weights nearer to each other or give it more documents");
  }
}

std::pair<const SampleSet*, int64_t> BlendedDataset::locate(int64_t index) const {
  if (index < 0 || index >= size()) no_such_sample(index, size());
  return {parts_[static_cast<size_t>(order_.dataset[index])].get(), order_.sample[index]};
}

void BlendedDataset::read(int64_t index, std::span<int64_t> out) const {
  const auto [part, sample] = locate(index);
  part->read(sample, out);
}

std::string BlendedDataset::origin(int64_t index) const {
  const auto [part, sample] = locate(index);
  return part->origin(sample);
}

std::string BlendedDataset::fingerprint() const {
  std::string data, order;
  for (const auto& part : parts_) {
    const std::string own = part->fingerprint();
    data += own.substr(0, own.find('-'));
    order += own;
  }
  order += xxh3_hex(order_.dataset.bytes()) + xxh3_hex(order_.sample.bytes());
  return xxh3_hex(data) + "-" + xxh3_hex(order);
}

namespace {

std::shared_ptr<const SampleSet> open_weighted(std::span<const WeightedPath> corpora, Split split,
                                               const std::optional<std::string>& split_text,
                                               int64_t num_samples,
                                               const GptDatasetOptions& options) {
  std::vector<double> weights;
  for (const WeightedPath& corpus : corpora) weights.push_back(*corpus.weight);
  weights = normalise(weights);
  const BlendSizes sizes = blend_sizes(weights, num_samples);
  std::vector<std::shared_ptr<const SampleSet>> parts;
  for (size_t i = 0; i < corpora.size(); ++i) {
    parts.push_back(
        GptDataset::open(corpora[i].path, split, split_text, sizes.prepared[i], options));
  }
  // Dividing by a sum that may be one bit off 1 is part of the reference's result.
  BlendOrder order = blend_by_weight(normalise(weights), sizes.total);
  return std::make_shared<BlendedDataset>(std::move(parts), std::move(order));
}

std::shared_ptr<const SampleSet> open_unweighted(std::span<const WeightedPath> corpora, Split split,
                                                 const std::optional<std::string>& split_text,
                                                 std::optional<int64_t> num_samples,
                                                 const GptDatasetOptions& options) {
  std::vector<std::shared_ptr<const SampleSet>> parts;
  std::vector<int64_t> sizes;
  int64_t total = 0;
  for (const WeightedPath& corpus : corpora) {
    parts.push_back(GptDataset::open(corpus.path, split, split_text, std::nullopt, options));
    sizes.push_back(parts.back()->size());
    total += sizes.back();
  }
  if (!num_samples) {
    return std::make_shared<BlendedDataset>(std::move(parts), blend_exhaustively(sizes));
  }
  const std::vector<double> weights(sizes.begin(), sizes.end());
  return std::make_shared<BlendedDataset>(
      std::move(parts), blend_by_weight(normalise(weights), std::min(*num_samples, total)));
}

}  // namespace

std::shared_ptr<const SampleSet> open_blend(std::span<const WeightedPath> corpora, Split split,
                                            const std::optional<std::string>& split_text,
                                            std::optional<int64_t> num_samples,
                                            const GptDatasetOptions& options) {
  if (corpora.empty())
    throw ConfigError("data", "expected at least one path in data.path, got none");
  if (corpora.size() == 1 && !corpora[0].weight) {
    return GptDataset::open(corpora[0].path, split, split_text, num_samples, options);
  }
  const bool weighted = corpora[0].weight.has_value() && num_samples.has_value();
  return weighted ? open_weighted(corpora, split, split_text, *num_samples, options)
                  : open_unweighted(corpora, split, split_text, num_samples, options);
}

}  // namespace qianli::data
