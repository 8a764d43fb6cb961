// All parameters of a model in one flat buffer, in the order of the parameter table. Its `buffer`
// entries are no parameters: each is a float32 tensor of its own, which no optimizer sees.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "qianli/model/parameter_table.h"
#include "qianli/nn/flat_ranges.h"
#include "qianli/ops/parameter.h"

namespace qianli::nn {

// Where a parameter lies in the flat buffers (values, gradients, optimizer states share the
// places).
struct FlatPlace {
  int64_t offset = 0;  // in elements, a multiple of kFlatAlignment
  int64_t count = 0;
};
inline constexpr int64_t kFlatAlignment = 64;  // elements; the gaps stay zero

class ParameterSet {
 public:
  // Values are undefined until initialize() or write(). With `master`, and a compute dtype below
  // float32, a float32 copy is kept beside: the one that the optimizer updates. With a sharding,
  // this rank owns only its slices of the flat buffer, and that copy has no more than those.
  ParameterSet(const model::ModelSpec& spec, at::ScalarType dtype, at::Device device, bool master,
               const FlatSharding& sharding = {}, int64_t rank = 0);

  // The start of training: pure functions of (seed, name, index), the same for every layout and
  // dtype.
  void initialize(uint64_t seed);
  void initialize(size_t index, uint64_t seed);

  // Copies values in and out of parameter `index` as float32 or float64, [first, first + count).
  void write(size_t index, int64_t first, const at::Tensor& values);
  // The parameter in the most exact form that is kept (the master, if there is one). Not of a
  // master that has slices only.
  at::Tensor exact(size_t index) const;
  // After the master changed: refreshes the compute copy of what this rank owns.
  void refresh_from_master();

  size_t size() const { return entries_.size(); }
  const model::ParameterEntry& entry(size_t index) const { return entries_[index]; }
  // Empty for buffers.
  const FlatPlace& place(size_t index) const { return places_[index]; }
  ops::Parameter& at(size_t index) { return *parameters_[index]; }
  // Throws std::out_of_range for a name the model does not have; find returns null.
  ops::Parameter& at(const std::string& name);
  ops::Parameter* find(const std::string& name);
  size_t index_of(const std::string& name) const { return index_.at(name); }

  // [flat_size()] in the compute dtype.
  const at::Tensor& flat() const { return flat_; }
  bool has_separate_master() const { return master_.defined() && !master_.is_same(flat_); }
  int64_t flat_size() const { return flat_size_; }
  // What this rank updates: all of the flat buffer, or its slices.
  const FlatRanges& owned() const { return owned_; }
  // [part.count] of the master (of flat() when compute is exact enough), part.place being its place
  // among what is owned.
  at::Tensor master(const FlatRanges::Part& part) const;
  at::ScalarType master_dtype() const { return master_.scalar_type(); }
  // Not for buffers.
  at::Tensor view(const at::Tensor& flat, size_t index) const;

 private:
  std::vector<model::ParameterEntry> entries_;
  std::vector<FlatPlace> places_;
  std::vector<at::Tensor> buffers_;  // defined for buffers only
  std::vector<std::unique_ptr<ops::Parameter>> parameters_;
  std::unordered_map<std::string, size_t> index_;
  int64_t flat_size_ = 0;
  FlatRanges owned_;
  at::Tensor flat_;
  at::Tensor master_;  // undefined; flat_; or float32 [owned_.count()]
};

}  // namespace qianli::nn
