#include "qianli/data/instruction_dataset.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/digest.h"
#include "qianli/data/instruction/manifest.h"
#include "qianli/data/instruction/packing.h"
#include "qianli/data/numpy_random.h"

namespace qianli::data {
namespace {

constexpr std::string_view kMiddle = "_packed_", kEnd = "_document.idx";

// Names of the fields between "PREFIX_packed_" and "_document".
std::vector<std::string> fields_beside(const fs::path& prefix) {
  std::vector<std::string> fields;
  const std::string begin = prefix.filename().string() + std::string(kMiddle);
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(fs::absolute(prefix).parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(begin) || !name.ends_with(kEnd)) continue;
    if (name.size() <= begin.size() + kEnd.size()) continue;
    fields.push_back(name.substr(begin.size(), name.size() - begin.size() - kEnd.size()));
  }
  std::sort(fields.begin(), fields.end());
  return fields;
}

void check_files(const fs::path& prefix, const InstructionManifest& manifest) {
  for (const auto& [name, fingerprint] : manifest.fingerprints) {
    const fs::path file = prefix.string() + "_packed_" + name;
    if (fingerprint_of_file(file) == fingerprint) continue;
    throw DataError("data", fmt::format("{} has changed since it was prepared", file.string()),
                    fmt::format("prepare the data again, or delete {} to use the files as they are",
                                instruction_manifest_path(prefix).string()));
  }
}

SequenceRange range_of(const fs::path& prefix, const InstructionDatasetOptions& options,
                       int64_t samples) {
  SequenceRange range{0, samples};
  if (options.split_text) {
    const auto fraction = parse_split(*options.split_text)[static_cast<size_t>(options.split)];
    range = fraction ? sequences_of(*fraction, samples) : SequenceRange{};
  }
  if (range.begin < range.end) return range;
  throw DataError(
      "data",
      fmt::format("expected samples for the {} split of {}, which has {}, got none",
                  kSplitNames[static_cast<size_t>(options.split)], prefix.string(), samples),
      "give this split a larger share, or more samples");
}

// Epoch for epoch from one stream of random numbers.
std::vector<int32_t> order_of(const SequenceRange& range,
                              const InstructionDatasetOptions& options) {
  const int64_t epoch_size = range.end - range.begin;
  const int64_t wanted = std::max<int64_t>(options.num_samples.value_or(epoch_size), 1);
  RandomState random(options.seed);
  std::vector<int32_t> order, epoch(static_cast<size_t>(epoch_size));
  while (static_cast<int64_t>(order.size()) < wanted) {
    std::iota(epoch.begin(), epoch.end(), static_cast<int32_t>(range.begin));
    if (options.shuffle) random.shuffle(std::span(epoch));
    order.insert(order.end(), epoch.begin(), epoch.end());
  }
  return order;
}

}  // namespace

bool InstructionDataset::exists(const fs::path& prefix) { return !fields_beside(prefix).empty(); }

InstructionDataset InstructionDataset::open(const fs::path& prefix,
                                            const InstructionDatasetOptions& options) {
  InstructionDataset dataset;
  dataset.prefix_ = prefix;
  dataset.fields_ = fields_beside(prefix);
  if (dataset.fields_.empty()) {
    throw DataError(
        "data", fmt::format("expected files {}_packed_..._document.idx, got none", prefix.string()),
        "make them with `qianli data prepare ROWS --template NAME --output PREFIX`");
  }
  if (const auto manifest = InstructionManifest::of_prefix(prefix)) {
    check_files(prefix, *manifest);
    if (manifest->sequence_length > 0) dataset.packed_length_ = manifest->sequence_length;
    dataset.neatly_packed_ =
        manifest->settings.value("packing", 0) == static_cast<int>(Packing::kNeat);
  }
  for (const std::string& field : dataset.fields_) {
    auto corpus = formats::IndexedDataset::open(field_prefix(prefix, field));
    if (corpus.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max()))
      throw DataError("data", fmt::format("{} has too many samples", prefix.string()));
    if (!dataset.corpora_.empty() && corpus.size() != dataset.corpora_[0].size()) {
      throw DataError(
          "data",
          fmt::format(
              "expected equally many samples in all fields of {}, got {} in {} and {} in {}",
              prefix.string(), dataset.corpora_[0].size(), dataset.fields_[0], corpus.size(),
              field),
          "files of another preparation lie beside these; prepare the data again");
    }
    dataset.corpora_.push_back(std::move(corpus));
  }
  dataset.order_ = order_of(range_of(prefix, options, dataset.stored()), options);
  return dataset;
}

bool InstructionDataset::has(const std::string& field) const {
  return std::binary_search(fields_.begin(), fields_.end(), field);
}

int64_t InstructionDataset::sample(int64_t position) const {
  if (position < 0 || position >= size())
    throw DataError("data", fmt::format("expected a sample in [0, {}), got {}", size(), position));
  return order_[static_cast<size_t>(position)];
}

const formats::IndexedDataset& InstructionDataset::corpus(const std::string& field) const {
  const auto found = std::lower_bound(fields_.begin(), fields_.end(), field);
  if (found == fields_.end() || *found != field) {
    throw DataError("data", fmt::format("expected the field {} of {}, got {}", field,
                                        prefix_.string(), join(fields_, ", ")));
  }
  return corpora_[static_cast<size_t>(found - fields_.begin())];
}

std::vector<int32_t> InstructionDataset::field(const std::string& name, int64_t sample) const {
  const formats::IndexedDataset& stored = corpus(name);
  const auto place = static_cast<size_t>(sample);
  std::vector<int32_t> ids(static_cast<size_t>(stored.lengths()[place]));
  stored.sequence(place, 0, std::span<int32_t>(ids));
  return ids;
}

std::string InstructionDataset::fingerprint() const {
  std::string files;
  for (const std::string& field : fields_)
    files += fingerprint_of_file(field_prefix(prefix_, field).string() + ".bin") +
             fingerprint_of_file(field_prefix(prefix_, field).string() + ".idx");
  return xxh3_hex(files) + "-" + xxh3_hex(std::as_bytes(std::span(order_)));
}

std::vector<int64_t> packed_positions(const std::vector<int32_t>& ids,
                                      const std::vector<int32_t>& mask, bool neat, int32_t eos) {
  std::vector<int64_t> positions(ids.size());
  int64_t next = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (neat && (mask[i] == 0 || (i > 0 && mask[i] != mask[i - 1]))) next = 0;
    positions[i] = next++;
    if (!neat && ids[i] == eos) next = 0;
  }
  return positions;
}

std::vector<int64_t> packed_segment_ends(const std::vector<int64_t>& positions,
                                         const std::vector<int32_t>& mask, bool neat) {
  std::vector<int64_t> ends;
  for (size_t i = 1; i < positions.size(); ++i) {
    const bool in_padding = neat && mask[i] == 0 && mask[i - 1] == 0;
    if (positions[i] == 0 && !in_padding) ends.push_back(static_cast<int64_t>(i));
  }
  if (!positions.empty()) ends.push_back(static_cast<int64_t>(positions.size()));
  return ends;
}

}  // namespace qianli::data
