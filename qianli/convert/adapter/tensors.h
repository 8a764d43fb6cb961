// The tensors of a PEFT adapter, by the module that they belong to.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

// Of one module; those it does not have are null. Embeddings have a and b of their own kind.
struct AdapterModule {
  const formats::TensorSpec* a = nullptr;          // [rank, in]
  const formats::TensorSpec* b = nullptr;          // [out, rank]
  const formats::TensorSpec* magnitude = nullptr;  // [out], DoRA
  bool embedding = false;
};

struct AdapterTensors {
  std::shared_ptr<const formats::TensorSource> source;
  std::map<std::string, AdapterModule> modules;  // "model.layers.0.self_attn.q_proj"
  // Tensors in the place of the base's, by the base's name (modules_to_save, biases).
  std::map<std::string, const formats::TensorSpec*> whole;
};

// What tensors of PEFT's names belong to. Throws CheckpointError for names that are no adapter's,
// modules with half a pair, and shapes that do not belong together.
AdapterTensors adapter_tensors(std::shared_ptr<const formats::TensorSource> source);
// Those of adapter_model.safetensors or adapter_model.bin of the folder.
AdapterTensors open_adapter_tensors(const std::filesystem::path& folder);

// Of the names of PEFT's tensors: base_model.model.<module of the base>.lora_A.weight
constexpr std::string_view kAdapterPrefix = "base_model.model.";

// The values of a tensor as float32.
std::vector<float> float_values(const formats::TensorSource& source,
                                const formats::TensorSpec& tensor);

}  // namespace qianli::convert
