#include "qianli/convert/megatron/adapter_layers.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

constexpr std::string_view kWeight = ".weight";
constexpr const char* kEnds[] = {".lora_{}.default.weight", ".lora_{}.weight"};

// Whether the tensor can be the weight of a linear layer: a matrix as it stands.
bool is_linear(const ForeignTensor& tensor) {
  const auto is_plain = [&](const Part& part) {
    return !part.transposed && part.offset == 0 && part.foreign_rows == tensor.shape[0] &&
           part.foreign_columns == tensor.shape[1];
  };
  return tensor.name.ends_with(kWeight) && tensor.shape.size() == 2 && !tensor.parts.empty() &&
         std::ranges::all_of(tensor.parts, is_plain) &&
         tensor.name.find("embeddings.") == tensor.name.npos;
}

std::string module_of(const ForeignTensor& tensor) {
  return tensor.name.substr(0, tensor.name.size() - kWeight.size());
}

using Place = std::tuple<size_t, int64_t, int64_t>;  // parameter, row, column

Place place_of(const ForeignTensor& tensor) {
  const Part& part = tensor.parts.front();
  return {part.parameter, part.first_row, part.first_column};
}

class Finder {
 public:
  explicit Finder(const RankSources& files) : files_(files) {}

  std::vector<AdaptedLayer> of(std::vector<AdaptedLayer> layers) const {
    for (AdaptedLayer& layer : layers) {
      for (const ForeignTensor* weight : layer.weights) {
        if (layer.a.empty()) find_adapter(*weight, layer);
      }
    }
    std::erase_if(layers, [](const AdaptedLayer& layer) { return layer.a.empty(); });
    check_that_all_belong(layers);
    return layers;
  }

 private:
  void find_adapter(const ForeignTensor& tensor, AdaptedLayer& layer) const {
    for (const char* end : kEnds) {
      const std::string a = fmt::format(fmt::runtime(end), "A");
      const formats::TensorSpec* found = files_[tensor.file]->find(layer.name + a);
      if (!found) continue;
      if (found->shape.size() != 2 || found->shape[0] < 1 || found->shape[0] > kMaxAdapterRank) {
        throw CheckpointError(
            "convert", fmt::format("{}: expected {} of shape [rank, in], got {}",
                                   files_[tensor.file]->source(), formats::shown_name(found->name),
                                   formats::shape_text(found->shape)));
      }
      layer.a = a;
      layer.b = fmt::format(fmt::runtime(end), "B");
      layer.rank = found->shape[0];
      return;
    }
  }

  void check_that_all_belong(const std::vector<AdaptedLayer>& layers) const {
    std::vector<std::set<std::string>> known(files_.size());
    for (const AdaptedLayer& layer : layers) {
      for (const ForeignTensor* weight : layer.weights) {
        known[weight->file].insert({layer.name + layer.a, layer.name + layer.b});
      }
    }
    for (size_t f = 0; f < files_.size(); ++f) {
      for (const formats::TensorSpec& tensor : files_[f]->tensors()) {
        if (is_adapter_name(tensor.name) && !known[f].contains(tensor.name)) refuse(f, tensor.name);
      }
    }
  }

  [[noreturn]] void refuse(size_t file, const std::string& name) const {
    const bool experts = name.find(".experts.") != name.npos;
    throw CheckpointError(
        "convert",
        fmt::format("{}: {}: expected lora_A and lora_B of a linear layer of the model{}",
                    files_[file]->source(), formats::shown_name(name),
                    experts ? ": experts in one tensor have no adapters in PEFT's form" : ""));
  }

  const RankSources& files_;
};

}  // namespace

std::vector<AdaptedLayer> linear_layers(const std::vector<ForeignTensor>& tensors,
                                        const std::vector<MegatronRank>& ranks) {
  std::map<Place, const ForeignTensor*> originals;  // the first tensor that holds the place
  for (const ForeignTensor& tensor : tensors) {
    if (!tensor.parts.empty()) originals.try_emplace(place_of(tensor), &tensor);
  }
  // Ranks of one stage that cut a layer among them call it alike; so do experts on other ranks
  // theirs, which are other layers.
  std::map<std::tuple<std::string, int64_t, int64_t>, size_t> places;
  std::vector<AdaptedLayer> layers;
  for (const ForeignTensor& tensor : tensors) {
    if (!is_linear(tensor)) continue;
    const ForeignTensor& original = *originals.at(place_of(tensor));
    if (original.name != tensor.name) continue;
    const MegatronRank& rank = ranks[original.file];
    const auto [found, added] =
        places.try_emplace({tensor.name, rank.pipeline, rank.expert}, layers.size());
    if (added) layers.push_back({.name = module_of(tensor), .a = {}, .b = {}, .weights = {}});
    layers[found->second].weights.push_back(&tensor);
  }
  return layers;
}

std::vector<AdaptedLayer> adapted_layers(const std::vector<ForeignTensor>& tensors,
                                         const std::vector<MegatronRank>& ranks,
                                         const RankSources& files) {
  return Finder(files).of(linear_layers(tensors, ranks));
}

}  // namespace qianli::convert
