// Adapters of low rank beside the weights of a model that only computes: any number of them, and
// each row of a pass has one or none (Chen et al., "Punica", arXiv:2310.18547). The weights are
// read once for all rows.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qianli/nn/adapter_runs.h"
#include "qianli/ops/low_rank.h"
#include "qianli/ops/parameter.h"

namespace qianli::nn {

// What one adapter adds to one linear layer, in the words of ops::LowRank.
struct AttachedLowRank {
  at::Tensor a, b;
  std::vector<ops::LowRank::Rows> modules;
  double scale = 1;
  // DoRA, [out]: by what the columns of y without the bias are multiplied. Undefined: they are not.
  at::Tensor factors = {};

  // The weight with the adapter in it. Of one linear layer, no experts.
  at::Tensor merged(const at::Tensor& weight) const;
  // y [T, out], the layer's output for x [T, in], becomes that with the adapter.
  void add(const at::Tensor& x, const ops::Parameter* bias, at::Tensor y) const;
};

// The adapters of one linear layer.
class AttachedLinear {
 public:
  // Whether rows of the pass under way have an adapter, of whatever layer.
  bool in_use() const { return !pass_->runs.empty(); }
  int64_t pass_rows() const { return pass_->rows; }

  // x: rows of the pass from `first` on.
  void add(const at::Tensor& x, const ops::Parameter* bias, int64_t first,
           const at::Tensor& y) const;
  // Of experts: rows of x sorted by expert as in ops::grouped_linear; tokens [R]: the row of the
  // pass that each is.
  void add_to_experts(const at::Tensor& x, const std::vector<int64_t>& counts,
                      const at::Tensor& tokens, const at::Tensor& y) const;
  // The weights that rows [first, first + count) of the pass have, adapters in them.
  struct RowsWeight {
    at::Tensor weight;
    int64_t first = 0, count = 0;
  };
  std::vector<RowsWeight> weights(const at::Tensor& weight, int64_t rows) const;

 private:
  friend class AttachedAdapters;
  struct Pass {
    std::vector<AdapterRun> runs;
    int64_t rows = 0;
  };
  const AttachedLowRank* find(int64_t adapter) const;

  std::shared_ptr<const Pass> pass_;
  std::map<int64_t, AttachedLowRank> adapters_;
};

class AttachedAdapters {
 public:
  AttachedAdapters();

  // Layers by name: "decoder.layers.0.self_attention.linear_qkv". Returns the adapter's number:
  // 0, 1, …
  int64_t attach(std::map<std::string, AttachedLowRank> layers);
  int64_t size() const { return size_; }
  // The rows of the pass that begins.
  void begin(std::vector<AdapterRun> runs, int64_t rows);
  // The same for all who ask for a layer, before or after adapters are attached.
  std::shared_ptr<const AttachedLinear> at(const std::string& layer) { return own(layer); }

 private:
  std::shared_ptr<AttachedLinear> own(const std::string& layer);

  std::shared_ptr<AttachedLinear::Pass> pass_;
  std::map<std::string, std::shared_ptr<AttachedLinear>> layers_;
  int64_t size_ = 0;
};

}  // namespace qianli::nn
