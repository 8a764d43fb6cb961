#include "qianli/nn/parameter_set.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "qianli/base/threads.h"

namespace qianli::nn {
namespace {

constexpr int64_t kInitialiserChunk = int64_t{1} << 18;

int64_t aligned(int64_t count) {
  return (count + kFlatAlignment - 1) / kFlatAlignment * kFlatAlignment;
}

std::vector<std::vector<plan::IndexRange>> kept_of(const formats::Box& box) {
  std::vector<std::vector<plan::IndexRange>> kept;
  for (size_t axis = 0; axis < box.shape.size(); ++axis) {
    kept.push_back({{box.offset[axis], box.offset[axis] + box.shape[axis]}});
  }
  return kept;
}

}  // namespace

ParameterSet::ParameterSet(const model::ModelSpec& spec, at::ScalarType dtype, at::Device device,
                           bool master, const plan::ModelPart& part, const FlatOwners& owners)
    : parts_(plan::parameter_parts(spec, part)) {
  place(owners);
  count();
  owned_ = slices(owners);
  const auto options = at::TensorOptions().device(device);
  flat_ = at::zeros({flat_size_}, options.dtype(dtype));
  const bool exact = dtype == at::kFloat || dtype == at::kDouble;
  if (exact) {
    master_ = flat_;
  } else if (master) {
    master_ = at::zeros({owned_.count()}, options.dtype(at::kFloat));
  }
  for (size_t i = 0; i < parts_.size(); ++i) {
    const auto& entry = parts_[i].entry;
    buffers_.push_back(entry.buffer ? at::zeros(parts_[i].shape, options.dtype(at::kFloat))
                                    : at::Tensor());
    parameters_.push_back(
        std::make_unique<ops::Parameter>(entry.name, entry.buffer ? buffers_[i] : view(flat_, i)));
    index_[entry.name] = i;
  }
  for (const auto& entry : model::parameter_table(spec)) {
    if (!index_.contains(entry.name)) elsewhere_.insert(entry.name);
  }
}

void ParameterSet::place(const FlatOwners& owners) {
  places_.resize(parts_.size());
  const auto lay_out = [&](const FlatOwner& owner, bool dense, bool experts) {
    const int64_t begin = flat_size_;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (!(parts_[i].entry.expert ? experts : dense)) continue;
      places_[i] = {flat_size_, parts_[i].entry.buffer ? 0 : parts_[i].elements()};
      flat_size_ += aligned(places_[i].count);
    }
    flat_size_ = begin + owner.sharding.padded_size(flat_size_ - begin);
    const int64_t before =
        regions_.empty() ? 0 : owners.dense.sharding.slices(begin, owners.dense.rank).count();
    regions_.push_back({{begin, flat_size_}, before});
  };
  lay_out(owners.dense, true, !owners.experts);
  if (owners.experts) lay_out(*owners.experts, false, true);
}

void ParameterSet::count() {
  std::vector<FlatRange> ranges;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const int64_t begin = places_[i].offset, end = begin + parts_[i].counted;
    if (parts_[i].entry.buffer || begin == end) continue;
    // Gaps hold zeros: neighbours go together.
    if (!ranges.empty() && aligned(ranges.back().end) == begin) {
      ranges.back().end = end;
    } else {
      ranges.push_back({begin, end});
    }
  }
  std::ranges::sort(ranges, {}, &FlatRange::begin);
  counted_ = FlatRanges(ranges);
}

FlatRanges ParameterSet::slices(const FlatOwners& owners) const {
  std::vector<FlatRange> ranges;
  for (size_t r = 0; r < regions_.size(); ++r) {
    const FlatOwner& owner = r == 0 ? owners.dense : *owners.experts;
    const FlatRange& region = regions_[r].range;
    const FlatRanges own = owner.sharding.slices(region.count(), owner.rank);
    for (const auto& part : own.parts()) {
      ranges.push_back({region.begin + part.begin, region.begin + part.begin + part.count});
    }
  }
  return FlatRanges(ranges);
}

at::Tensor ParameterSet::view(const at::Tensor& flat, size_t index) const {
  return flat.narrow(0, places_[index].offset, places_[index].count).view(parts_[index].shape);
}

void ParameterSet::initialize(uint64_t seed) {
  for (size_t i = 0; i < parts_.size(); ++i) initialize(i, seed);
}

void ParameterSet::initialize(size_t index, uint64_t seed) {
  const plan::ParameterPart& part = parts_[index];
  std::vector<float> values(static_cast<size_t>(part.elements()));
  std::vector<plan::Run> pieces;  // of a size that keeps all threads busy
  for (const plan::Run& run : plan::runs(part)) {
    for (int64_t done = 0; done < run.count; done += kInitialiserChunk) {
      pieces.push_back({run.first + done, run.whole_first + done,
                        std::min(kInitialiserChunk, run.count - done)});
    }
  }
  parallel_for(static_cast<int64_t>(pieces.size()), available_cores(), [&](int64_t i) {
    const plan::Run& piece = pieces[static_cast<size_t>(i)];
    model::initial_values(part.entry, seed, piece.whole_first,
                          std::span(values).subspan(static_cast<size_t>(piece.first),
                                                    static_cast<size_t>(piece.count)));
  });
  write_own(index, 0, at::from_blob(values.data(), {part.elements()}, at::kFloat));
}

void ParameterSet::write(size_t index, int64_t first, const at::Tensor& values) {
  const plan::ParameterPart& part = parts_[index];
  if (part.whole()) return write_own(index, first, values);
  const at::Tensor flat = values.flatten();
  int64_t next = 0;
  for (const formats::Box& box : formats::boxes_of(part.entry.shape, first, flat.numel())) {
    const at::Tensor source = flat.narrow(0, next, box.elements()).view(box.shape);
    next += box.elements();
    for (const plan::PlacedBox& shared : plan::common(part, box)) {
      at::Tensor own = source;
      for (size_t axis = 0; axis < box.shape.size(); ++axis) {
        own = own.narrow(static_cast<int64_t>(axis), shared.whole.offset[axis] - box.offset[axis],
                         shared.whole.shape[axis]);
      }
      write_box(index, shared.local, own);
    }
  }
}

void ParameterSet::write_box(size_t index, const formats::Box& box, const at::Tensor& values) {
  const std::vector<int64_t>& shape = parts_[index].shape;
  if (entry(index).buffer || !has_separate_master()) {
    at::Tensor target = entry(index).buffer ? buffers_[index] : view(flat_, index);
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      target = target.narrow(static_cast<int64_t>(axis), box.offset[axis], box.shape[axis]);
    }
    target.copy_(values);
    return;
  }
  // The master may have slices only: run by run.
  const at::Tensor own = values.contiguous().view(-1);
  const plan::ParameterPart whole{
      .entry = {.shape = shape}, .shape = box.shape, .kept = kept_of(box)};
  for (const plan::Run& run : plan::runs(whole)) {
    write_own(index, run.whole_first, own.narrow(0, run.first, run.count));
  }
}

void ParameterSet::write_own(size_t index, int64_t first, const at::Tensor& values) {
  const at::Tensor source = values.flatten();
  if (entry(index).buffer) {
    buffers_[index].view(-1).narrow(0, first, source.numel()).copy_(source);
    return;
  }
  const int64_t begin = places_[index].offset + first;
  flat_.narrow(0, begin, source.numel()).copy_(source);
  if (!has_separate_master()) return;
  for (const auto& part : owned_.within(begin, begin + source.numel())) {
    master(part).copy_(source.narrow(0, part.begin - begin, part.count));
  }
}

at::Tensor ParameterSet::master(const FlatRanges::Part& part) const {
  return has_separate_master() ? master_.narrow(0, part.place, part.count)
                               : flat_.narrow(0, part.begin, part.count);
}

at::Tensor ParameterSet::exact(size_t index) const {
  if (entry(index).buffer) return buffers_[index];
  TORCH_CHECK(!has_separate_master() || owned_.count() == flat_size_,
              "[nn] expected a whole master, got slices of it");
  return view(master_.defined() ? master_ : flat_, index);
}

void ParameterSet::refresh_from_master() {
  if (!has_separate_master()) return;
  for (const auto& part : owned_.parts()) {
    flat_.narrow(0, part.begin, part.count).copy_(master(part));
  }
}

ops::Parameter& ParameterSet::at(const std::string& name) { return *parameters_[index_.at(name)]; }

ops::Parameter* ParameterSet::find(const std::string& name) {
  const auto place = index_.find(name);
  return place == index_.end() ? nullptr : parameters_[place->second].get();
}

}  // namespace qianli::nn
