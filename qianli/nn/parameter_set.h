// The parameters that a rank holds, whole or in part, in one flat buffer, in the order of the
// parameter table (nn/flat_layout.h). Its `buffer` entries are no parameters: each is a float32
// tensor of its own, which no optimizer sees. Weights that are kept in few bits are apart from it,
// too, and whole on every rank that has a part of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "qianli/model/parameter_table.h"
#include "qianli/nn/flat_layout.h"
#include "qianli/nn/unit_buffers.h"
#include "qianli/nn/unit_use.h"
#include "qianli/ops/parameter.h"
#include "qianli/plan/model_part.h"

namespace qianli::config {
struct TuneConfig;
}

namespace qianli::ops {
class QuantizedWeight;
}

namespace qianli::nn {

class AttachedAdapters;

class ParameterSet {
 public:
  // Values are undefined until initialize() or write(). With `master`, and a compute dtype below
  // float32, a float32 copy is kept beside: the one that the optimizer updates. This rank owns only
  // its slices of the flat buffer, and that copy has no more than those. Where it keeps slices of
  // the values, too, a unit's parameters have values only while gathered() has it. `tune`: what
  // training adds and leaves as it is; null: it changes all. What it leaves has no float32 copy.
  ParameterSet(const model::ModelSpec& spec, at::ScalarType dtype, at::Device device, bool master,
               const plan::ModelPart& part = {}, const FlatOwners& owners = {},
               const config::TuneConfig* tune = nullptr);

  // The start of training: pure functions of (seed, name, index in the whole parameter), the same
  // for every layout and dtype.
  void initialize(uint64_t seed);
  void initialize(size_t index, uint64_t seed);

  // Elements [first, first + count) of the whole parameter `index`, as float32 or float64: what the
  // rank holds of them is kept.
  void write(size_t index, int64_t first, const at::Tensor& values);
  // What the rank holds of a parameter in the most exact form that is kept (the master, if there is
  // one). Not where only slices of that are kept.
  at::Tensor exact(size_t index) const;
  // After the master changed: refreshes the compute copy of what this rank owns.
  void refresh_from_master();

  size_t size() const { return parts_.size(); }
  const plan::ParameterPart& part(size_t index) const { return parts_[index]; }
  const model::ParameterEntry& entry(size_t index) const { return parts_[index].entry; }
  // Empty for buffers and quantised weights.
  const FlatPlace& place(size_t index) const { return layout_.place(index); }
  size_t region_of(size_t index) const { return layout_.region_of(index); }
  // Whether an optimizer has it.
  bool is_trained(size_t index) const {
    return !parts_[index].entry.buffer && !parts_[index].frozen;
  }
  ops::Parameter& at(size_t index) { return *parameters_[index]; }
  // Throws std::out_of_range for a name the rank does not hold; find returns null.
  ops::Parameter& at(const std::string& name);
  ops::Parameter* find(const std::string& name);
  size_t index_of(const std::string& name) const { return index_.at(name); }
  // A parameter of the model of which this rank holds nothing.
  bool is_elsewhere(const std::string& name) const { return elsewhere_.contains(name); }
  const std::unordered_set<std::string>& elsewhere() const { return elsewhere_; }
  const config::TuneConfig& tune() const { return *tune_; }
  // Adapters that the linear layers of a model which only computes have beside their weights.
  AttachedAdapters& attached() { return *attached_; }

  const FlatLayout& layout() const { return layout_; }
  // What this rank updates: all that is trained of the flat buffer, or its slices of that.
  const FlatRanges& owned() const { return layout_.owned(); }
  int64_t flat_size() const { return layout_.size(); }
  // The units of the parameters whose names begin so: "decoder.layers.3."; empty: none.
  Units units_with(const std::string& prefix) const;

  const at::TensorOptions& options() const { return options_; }  // of the values
  // [flat_size()] in the compute dtype. Not where slices are kept.
  const at::Tensor& flat() const;
  // The values that this rank keeps of a region: all of them, or its slices, one behind the other.
  const at::Tensor& kept(size_t region) const { return kept_[region]; }
  bool keeps_slices(size_t region) const { return layout_.regions()[region].owner.keeps_slices; }
  // Where units are gathered of which slices are kept: the number of a unit's piece of a region
  // there.
  UnitBuffers& gathered() { return gathered_; }
  size_t gathered_piece(size_t unit, size_t region) const { return pieces_.at({unit, region}); }

  bool has_separate_master() const { return master_.defined(); }
  // The elements for which this rank answers among those that hold other parts of the model.
  const FlatRanges& counted() const { return counted_; }
  // [part.count] of the master (of the values when these are exact enough), and of the values,
  // part.place being its place among what is owned (layout().slices_with()).
  at::Tensor master(const FlatRanges::Part& part) const;
  at::Tensor values(const FlatRanges::Part& part) const;
  at::ScalarType master_dtype() const;
  // Bytes of the values, quantised ones too, and of a separate master that are always there.
  int64_t kept_bytes() const;
  // Not for buffers.
  at::Tensor view(const at::Tensor& flat, size_t index) const;

 private:
  std::shared_ptr<ops::QuantizedWeight> make_quantized(size_t index);
  void make_values();
  void make_pieces();
  void count();
  bool keeps_slices_of(size_t index) const;
  bool has_master(size_t index) const { return has_separate_master() && is_trained(index); }
  // Which elements of what it holds of a parameter the rank keeps.
  std::vector<FlatRange> kept_ranges(size_t index) const;
  // `values` have the shape of the box, which is one of what the rank holds.
  void write_box(size_t index, const formats::Box& box, const at::Tensor& values);
  // Elements [first, first + values.numel()) of what the rank holds.
  void write_own(size_t index, int64_t first, const at::Tensor& values);
  // A parameter in a tensor of all elements of the flat buffer from `begin` on.
  at::Tensor view_from(const at::Tensor& values, int64_t begin, size_t index) const;

  std::shared_ptr<const config::TuneConfig> tune_;
  std::shared_ptr<AttachedAdapters> attached_;
  std::vector<plan::ParameterPart> parts_;
  std::unordered_set<std::string> elsewhere_;
  FlatLayout layout_;
  at::TensorOptions options_;
  std::vector<at::Tensor> buffers_;                               // defined for buffers only
  std::vector<std::shared_ptr<ops::QuantizedWeight>> quantized_;  // null: it is not
  std::vector<std::unique_ptr<ops::Parameter>> parameters_;
  std::unordered_map<std::string, size_t> index_;
  FlatRanges counted_;
  at::Tensor flat_;               // of the regions that are whole, where all are
  std::vector<at::Tensor> kept_;  // by region
  UnitBuffers gathered_;
  std::map<std::pair<size_t, size_t>, size_t> pieces_;  // by unit and region
  at::Tensor master_;  // float32 [owned().count()], where it is not the values themselves
};

}  // namespace qianli::nn
