#include "qianli/nn/parameter_set.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include "qianli/base/threads.h"

namespace qianli::nn {
namespace {

constexpr int64_t kInitialiserChunk = int64_t{1} << 18;

int64_t aligned(int64_t count) {
  return (count + kFlatAlignment - 1) / kFlatAlignment * kFlatAlignment;
}

}  // namespace

ParameterSet::ParameterSet(const model::ModelSpec& spec, at::ScalarType dtype, at::Device device,
                           bool master, const FlatSharding& sharding, int64_t rank)
    : entries_(model::parameter_table(spec)) {
  for (const auto& entry : entries_) {
    const int64_t count = entry.buffer ? 0 : entry.elements();
    places_.push_back({flat_size_, count});
    flat_size_ += aligned(count);
  }
  flat_size_ = sharding.padded_size(flat_size_);
  owned_ = sharding.slices(flat_size_, rank);
  const auto options = at::TensorOptions().device(device);
  flat_ = at::zeros({flat_size_}, options.dtype(dtype));
  const bool exact = dtype == at::kFloat || dtype == at::kDouble;
  if (exact) {
    master_ = flat_;
  } else if (master) {
    master_ = at::zeros({owned_.count()}, options.dtype(at::kFloat));
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    buffers_.push_back(entries_[i].buffer ? at::zeros(entries_[i].shape, options.dtype(at::kFloat))
                                          : at::Tensor());
    parameters_.push_back(std::make_unique<ops::Parameter>(
        entries_[i].name, entries_[i].buffer ? buffers_[i] : view(flat_, i)));
    index_[entries_[i].name] = i;
  }
}

at::Tensor ParameterSet::view(const at::Tensor& flat, size_t index) const {
  return flat.narrow(0, places_[index].offset, places_[index].count).view(entries_[index].shape);
}

void ParameterSet::initialize(uint64_t seed) {
  for (size_t i = 0; i < entries_.size(); ++i) initialize(i, seed);
}

void ParameterSet::initialize(size_t index, uint64_t seed) {
  const int64_t count = entries_[index].elements();
  std::vector<float> values(count);
  const int64_t chunks = (count + kInitialiserChunk - 1) / kInitialiserChunk;
  parallel_for(chunks, available_cores(), [&](int64_t chunk) {
    const int64_t first = chunk * kInitialiserChunk;
    const int64_t size = std::min(kInitialiserChunk, count - first);
    model::initial_values(entries_[index], seed, first, std::span(values).subspan(first, size));
  });
  write(index, 0, at::from_blob(values.data(), {count}, at::kFloat));
}

void ParameterSet::write(size_t index, int64_t first, const at::Tensor& values) {
  const at::Tensor source = values.flatten();
  if (entries_[index].buffer) {
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
  if (entries_[index].buffer) return buffers_[index];
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
