// The parameters that a rank holds, whole or in part, in one flat buffer, in the order of the
// parameter table. Its `buffer` entries are no parameters: each is a float32 tensor of its own,
// which no optimizer sees. Where the ranks that hold the same experts are others than those that
// hold the same of the rest, the experts lie in a region of their own, behind the rest.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "qianli/model/parameter_table.h"
#include "qianli/nn/flat_ranges.h"
#include "qianli/ops/parameter.h"
#include "qianli/plan/model_part.h"

namespace qianli::nn {

// Where a parameter lies in the flat buffers (values, gradients, optimizer states share the
// places).
struct FlatPlace {
  int64_t offset = 0;  // in elements, a multiple of kFlatAlignment
  int64_t count = 0;
};
inline constexpr int64_t kFlatAlignment = 64;  // elements; the gaps stay zero

// Which of the slices of a region of the flat buffers are this rank's.
struct FlatOwner {
  FlatSharding sharding;
  int64_t rank = 0;  // among those that hold the same
};
struct FlatOwners {
  FlatOwner dense;
  std::optional<FlatOwner> experts;  // absent: the experts are in the one region, too
};

class ParameterSet {
 public:
  // Values are undefined until initialize() or write(). With `master`, and a compute dtype below
  // float32, a float32 copy is kept beside: the one that the optimizer updates. This rank owns only
  // its slices of the flat buffer, and that copy has no more than those.
  ParameterSet(const model::ModelSpec& spec, at::ScalarType dtype, at::Device device, bool master,
               const plan::ModelPart& part = {}, const FlatOwners& owners = {});

  // The start of training: pure functions of (seed, name, index in the whole parameter), the same
  // for every layout and dtype.
  void initialize(uint64_t seed);
  void initialize(size_t index, uint64_t seed);

  // Elements [first, first + count) of the whole parameter `index`, as float32 or float64: what the
  // rank holds of them is kept.
  void write(size_t index, int64_t first, const at::Tensor& values);
  // What the rank holds of a parameter in the most exact form that is kept (the master, if there is
  // one). Not of a master that has slices only.
  at::Tensor exact(size_t index) const;
  // After the master changed: refreshes the compute copy of what this rank owns.
  void refresh_from_master();

  size_t size() const { return parts_.size(); }
  const plan::ParameterPart& part(size_t index) const { return parts_[index]; }
  const model::ParameterEntry& entry(size_t index) const { return parts_[index].entry; }
  // Empty for buffers.
  const FlatPlace& place(size_t index) const { return places_[index]; }
  ops::Parameter& at(size_t index) { return *parameters_[index]; }
  // Throws std::out_of_range for a name the rank does not hold; find returns null.
  ops::Parameter& at(const std::string& name);
  ops::Parameter* find(const std::string& name);
  size_t index_of(const std::string& name) const { return index_.at(name); }
  // A parameter of the model of which this rank holds nothing.
  bool is_elsewhere(const std::string& name) const { return elsewhere_.contains(name); }
  const std::unordered_set<std::string>& elsewhere() const { return elsewhere_; }

  // [flat_size()] in the compute dtype.
  const at::Tensor& flat() const { return flat_; }
  bool has_separate_master() const { return master_.defined() && !master_.is_same(flat_); }
  int64_t flat_size() const { return flat_size_; }
  // One, or that of the experts behind that of the rest. Not empty.
  struct Region {
    FlatRange range;
    int64_t place = 0;  // of its first owned element among all that are owned
  };
  const std::vector<Region>& regions() const { return regions_; }
  size_t region_of(size_t index) const {
    return parts_[index].entry.expert ? regions_.size() - 1 : 0;
  }
  // What this rank updates: all of the flat buffer, or its slices.
  const FlatRanges& owned() const { return owned_; }
  // What is owners' of the flat buffer.
  FlatRanges slices(const FlatOwners& owners) const;
  // The elements for which this rank answers among those that hold other parts of the model.
  const FlatRanges& counted() const { return counted_; }
  // [part.count] of the master (of flat() when compute is exact enough), part.place being its place
  // among what is owned.
  at::Tensor master(const FlatRanges::Part& part) const;
  at::ScalarType master_dtype() const { return master_.scalar_type(); }
  // Not for buffers.
  at::Tensor view(const at::Tensor& flat, size_t index) const;

 private:
  void place(const FlatOwners& owners);
  void count();
  // `values` have the shape of the box, which is one of what the rank holds.
  void write_box(size_t index, const formats::Box& box, const at::Tensor& values);
  // Elements [first, first + values.numel()) of what the rank holds.
  void write_own(size_t index, int64_t first, const at::Tensor& values);

  std::vector<plan::ParameterPart> parts_;
  std::unordered_set<std::string> elsewhere_;
  std::vector<FlatPlace> places_;
  std::vector<at::Tensor> buffers_;  // defined for buffers only
  std::vector<std::unique_ptr<ops::Parameter>> parameters_;
  std::unordered_map<std::string, size_t> index_;
  int64_t flat_size_ = 0;
  std::vector<Region> regions_;
  FlatRanges owned_, counted_;
  at::Tensor flat_;
  at::Tensor master_;  // undefined; flat_; or float32 [owned_.count()]
};

}  // namespace qianli::nn
