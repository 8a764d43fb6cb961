#include "qianli/data/instruction/assemble.h"

#include <algorithm>
#include <memory>

#include "qianli/base/stop.h"
#include "qianli/data/instruction/manifest.h"
#include "qianli/formats/indexed_dataset.h"
#include "qianli/text/chat/encode_turns.h"

namespace qianli::data {
namespace {

using formats::IndexedDataset;
using formats::IndexedDatasetWriter;

constexpr const char* kIds = "input_ids";
constexpr const char* kMask = "attention_mask";
constexpr const char* kLabels = "labels";

void add(IndexedDatasetWriter& writer, const std::vector<int32_t>& sequence) {
  writer.add_item(std::span<const int32_t>(sequence));
  writer.end_document();
}

std::vector<int32_t> sequence_of(const IndexedDataset& corpus, size_t i) {
  std::vector<int32_t> ids(static_cast<size_t>(corpus.lengths()[i]));
  corpus.sequence(i, 0, std::span<int32_t>(ids));
  return ids;
}

int64_t concatenate(const Assembly& assembly) {
  std::vector<std::unique_ptr<IndexedDatasetWriter>> writers;
  for (const std::string& field : written_fields(assembly.fields)) {
    auto& writer = writers.emplace_back(
        std::make_unique<IndexedDatasetWriter>(field_prefix(assembly.prefix, field)));
    for (const fs::path& part : assembly.parts) {
      throw_if_stopped("data");
      if (field != kMask) {
        writer->add_index(assembly.part_of(part, field));
        continue;
      }
      const auto ids = IndexedDataset::open(assembly.part_of(part, kIds));
      for (size_t i = 0; i < ids.size(); ++i)
        add(*writer, std::vector<int32_t>(static_cast<size_t>(ids.lengths()[i]), 1));
    }
  }
  for (auto& writer : writers) writer->commit();
  return static_cast<int64_t>(writers[0]->num_sequences());
}

// All samples of the parts under one number.
class Samples {
 public:
  explicit Samples(const Assembly& assembly) {
    for (const fs::path& part : assembly.parts) {
      ids_.push_back(IndexedDataset::open(assembly.part_of(part, kIds)));
      labels_.push_back(IndexedDataset::open(assembly.part_of(part, kLabels)));
      firsts_.push_back(lengths_.size());
      for (size_t i = 0; i < ids_.back().size(); ++i) lengths_.push_back(ids_.back().lengths()[i]);
    }
  }
  const std::vector<int32_t>& lengths() const { return lengths_; }
  void append(int64_t sample, std::vector<int32_t>& ids, std::vector<int32_t>& labels) const {
    const auto place = static_cast<size_t>(sample);
    const auto above = std::upper_bound(firsts_.begin(), firsts_.end(), place);
    const auto part = static_cast<size_t>(above - firsts_.begin()) - 1;
    for (const auto& [corpus, out] : {std::pair(&ids_[part], &ids), {&labels_[part], &labels}}) {
      const auto sequence = sequence_of(*corpus, place - firsts_[part]);
      out->insert(out->end(), sequence.begin(), sequence.end());
    }
  }

 private:
  std::vector<IndexedDataset> ids_, labels_;
  std::vector<size_t> firsts_;
  std::vector<int32_t> lengths_;
};

int64_t pack(const Assembly& assembly) {
  const Samples samples(assembly);
  const auto length = static_cast<size_t>(assembly.sequence_length);
  const bool neat = assembly.packing == Packing::kNeat;
  IndexedDatasetWriter ids_writer(field_prefix(assembly.prefix, kIds)),
      mask_writer(field_prefix(assembly.prefix, kMask)),
      labels_writer(field_prefix(assembly.prefix, kLabels));
  for (const auto& bin : pack_bins(samples.lengths(), assembly.sequence_length - 1)) {
    throw_if_stopped("data");
    std::vector<int32_t> ids, labels, mask;
    for (size_t k = 0; k < bin.size(); ++k) {
      samples.append(bin[k], ids, labels);
      mask.resize(ids.size(), neat ? static_cast<int32_t>(k) + 1 : 1);
    }
    ids.resize(length, assembly.pad);
    labels.resize(length, text::chat::kIgnored);
    mask.resize(length, neat ? 0 : 1);
    add(ids_writer, ids);
    add(mask_writer, mask);
    add(labels_writer, labels);
  }
  for (auto* writer : {&ids_writer, &mask_writer, &labels_writer}) writer->commit();
  return static_cast<int64_t>(ids_writer.num_sequences());
}

}  // namespace

std::vector<std::string> written_fields(const std::vector<std::string>& fields) {
  std::vector<std::string> all = fields;
  if (all[0] == kIds) all.insert(all.begin() + 1, kMask);
  return all;
}

int64_t assemble(const Assembly& assembly) {
  return assembly.packing == Packing::kNone ? concatenate(assembly) : pack(assembly);
}

}  // namespace qianli::data
