// Stored instruction data made by hand.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "qianli/data/instruction/manifest.h"
#include "qianli/data/instruction_dataset.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data::testing_support {

struct StoredSample {
  std::vector<int32_t> ids, labels;
  std::vector<int32_t> mask = {};  // empty: ones
};

inline void write_samples(const fs::path& prefix, const std::vector<StoredSample>& samples) {
  const auto write = [&](const std::string& field, const auto& of) {
    formats::IndexedDatasetWriter writer(field_prefix(prefix, field));
    for (const StoredSample& sample : samples) {
      const std::vector<int32_t> values = of(sample);
      writer.add_item(std::span<const int32_t>(values));
      writer.end_document();
    }
    writer.commit();
  };
  write("input_ids", [](const StoredSample& sample) { return sample.ids; });
  write("labels", [](const StoredSample& sample) { return sample.labels; });
  write("attention_mask", [](const StoredSample& sample) {
    return sample.mask.empty() ? std::vector<int32_t>(sample.ids.size(), 1) : sample.mask;
  });
}

// In the order in which they are stored.
inline std::shared_ptr<const InstructionDataset> open_samples(const fs::path& prefix) {
  return std::make_shared<const InstructionDataset>(
      InstructionDataset::open(prefix, {.shuffle = false}));
}

}  // namespace qianli::data::testing_support
