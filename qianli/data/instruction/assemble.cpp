#include "qianli/data/instruction/assemble.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "qianli/base/stop.h"
#include "qianli/data/instruction/manifest.h"
#include "qianli/data/instruction/sample.h"
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
  explicit Samples(const Assembly& assembly) : fields_(assembly.fields) {
    for (const fs::path& part : assembly.parts) {
      auto& corpora = parts_.emplace_back();
      for (const std::string& field : fields_)
        corpora.push_back(IndexedDataset::open(assembly.part_of(part, field)));
      firsts_.push_back(size_);
      size_ += corpora[0].size();
    }
  }
  size_t size() const { return size_; }
  Sample sample(int64_t number) const {
    const auto [part, place] = find(number);
    Sample sample;
    for (const IndexedDataset& corpus : parts_[part])
      sample.fields.push_back(sequence_of(corpus, place));
    return sample;
  }
  // Of its first field.
  int32_t length(int64_t number) const {
    const auto [part, place] = find(number);
    return parts_[part][0].lengths()[place];
  }
  void count(const Sample& sample, Assembled& made) const {
    ++made.samples;
    made.tokens += sample.tokens(fields_);
    made.trained += sample.trained(fields_);
  }

 private:
  std::pair<size_t, size_t> find(int64_t number) const {
    const auto place = static_cast<size_t>(number);
    const auto above = std::upper_bound(firsts_.begin(), firsts_.end(), place);
    const auto part = static_cast<size_t>(above - firsts_.begin()) - 1;
    return {part, place - firsts_[part]};
  }

  std::vector<std::string> fields_;
  std::vector<std::vector<IndexedDataset>> parts_;
  std::vector<size_t> firsts_;
  size_t size_ = 0;
};

Assembled concatenate_in_order(const Assembly& assembly) {
  const Samples samples(assembly);
  const auto names = written_fields(assembly.fields);
  std::vector<std::unique_ptr<IndexedDatasetWriter>> writers;
  for (const std::string& field : names)
    writers.push_back(std::make_unique<IndexedDatasetWriter>(field_prefix(assembly.prefix, field)));
  Assembled made;
  for (const int64_t number : assembly.order->samples) {
    throw_if_stopped("data");
    const Sample sample = samples.sample(number);
    samples.count(sample, made);
    for (size_t f = 0, stored = 0; f < names.size(); ++f) {
      if (names[f] == kMask) {
        add(*writers[f], std::vector<int32_t>(sample.fields[0].size(), 1));
      } else {
        add(*writers[f], sample.fields[stored++]);
      }
    }
  }
  for (auto& writer : writers) writer->commit();
  made.sequences = made.samples;
  return made;
}

SampleOrder as_they_stand(const Samples& samples) {
  SampleOrder order{std::vector<int64_t>(samples.size()), {samples.size()}};
  std::iota(order.samples.begin(), order.samples.end(), 0);
  return order;
}

class Packs {
 public:
  explicit Packs(const Assembly& assembly)
      : assembly_(assembly),
        samples_(assembly),
        ids_(field_prefix(assembly.prefix, kIds)),
        mask_(field_prefix(assembly.prefix, kMask)),
        labels_(field_prefix(assembly.prefix, kLabels)) {}

  Assembled write() {
    const SampleOrder order = assembly_.order ? *assembly_.order : as_they_stand(samples_);
    size_t begin = 0;
    for (const size_t end : order.ends) {
      pack(std::span(order.samples).subspan(begin, end - begin));
      begin = end;
    }
    for (auto* writer : {&ids_, &mask_, &labels_}) writer->commit();
    made_.sequences = static_cast<int64_t>(ids_.num_sequences());
    return made_;
  }

 private:
  void pack(std::span<const int64_t> group) {
    std::vector<int32_t> lengths;
    for (const int64_t number : group) lengths.push_back(samples_.length(number));
    for (std::vector<int64_t>& bin : pack_bins(lengths, assembly_.sequence_length - 1)) {
      throw_if_stopped("data");
      for (int64_t& number : bin) number = group[static_cast<size_t>(number)];
      add_pack(bin);
    }
  }

  void add_pack(const std::vector<int64_t>& bin) {
    const auto length = static_cast<size_t>(assembly_.sequence_length);
    const bool neat = assembly_.packing == Packing::kNeat;
    std::vector<int32_t> ids, labels, mask;
    for (size_t k = 0; k < bin.size(); ++k) {
      const Sample sample = samples_.sample(bin[k]);
      samples_.count(sample, made_);
      ids.insert(ids.end(), sample.fields[0].begin(), sample.fields[0].end());
      labels.insert(labels.end(), sample.fields[1].begin(), sample.fields[1].end());
      mask.resize(ids.size(), neat ? static_cast<int32_t>(k) + 1 : 1);
    }
    ids.resize(length, assembly_.pad);
    labels.resize(length, text::chat::kIgnored);
    mask.resize(length, neat ? 0 : 1);
    add(ids_, ids);
    add(mask_, mask);
    add(labels_, labels);
  }

  const Assembly& assembly_;
  Samples samples_;
  IndexedDatasetWriter ids_, mask_, labels_;
  Assembled made_;
};

}  // namespace

std::vector<std::string> written_fields(const std::vector<std::string>& fields) {
  std::vector<std::string> all = fields;
  if (all[0] == kIds) all.insert(all.begin() + 1, kMask);
  return all;
}

Assembled assemble(const Assembly& assembly) {
  if (assembly.packing != Packing::kNone) return Packs(assembly).write();
  if (assembly.order) return concatenate_in_order(assembly);
  return {.sequences = concatenate(assembly)};
}

}  // namespace qianli::data
