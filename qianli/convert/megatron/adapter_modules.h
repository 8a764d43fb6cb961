// Modules of a PEFT adapter, as they find a place in Megatron's linear layers.
#pragma once

#include <string>
#include <vector>

#include "qianli/convert/megatron/adapter_layers.h"
#include "qianli/convert/megatron/adapter_origin.h"

namespace qianli::convert {

// A layer of Megatron's has one A for all modules of Hugging Face's whose rows it holds. Where the
// modules of every layer have one A, they keep it; else these stand under one another, and the
// layers' rank has room for all.
class AdaptedModules {
 public:
  // `tensors` are the base's on its ranks; they and the adapter outlive this. Throws
  // CheckpointError for what has no place there.
  AdaptedModules(const Adapter& adapter, const Table& base,
                 const std::vector<ForeignTensor>& tensors, const std::vector<MegatronRank>& ranks);

  // The layers that have an adapter.
  std::vector<AdaptedLayer> layers() const;
  // The last parts of their names: linear_qkv, linear_proj, …
  std::vector<std::string> kinds() const;
  const ModulePlaces& places() const { return places_; }
  // The modules with an adapter that share the layer of this one, itself among them.
  std::vector<std::string> beside(const std::string& module) const;
  int64_t rank() const { return rank_; }
  double alpha() const { return scale_ * static_cast<double>(rank_); }

 private:
  struct Group {
    AdaptedLayer layer;
    std::vector<std::string> modules;
  };
  void check_kind() const;
  void check_scale();
  std::vector<std::string> present(const Group& group) const;
  bool is_shared() const;
  void place_modules();
  [[noreturn]] void refuse(const std::string& problem) const;

  const Adapter& adapter_;
  std::vector<Group> groups_;
  ModulePlaces places_;
  int64_t rank_ = 0;
  double scale_ = 0;
};

}  // namespace qianli::convert
