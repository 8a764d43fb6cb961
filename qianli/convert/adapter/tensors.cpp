#include "qianli/convert/adapter/tensors.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::TensorSpec;

[[noreturn]] void refuse(const formats::TensorSource& source, const TensorSpec& tensor,
                         const std::string& reason) {
  throw CheckpointError("convert", fmt::format("{}: {}: {}", source.source(),
                                               formats::shown_name(tensor.name), reason));
}

// "X.lora_A.weight" or "X.lora_A.default.weight": true, and the name becomes X.
bool take_suffix(std::string& name, std::string_view word) {
  const size_t at = name.rfind(word);
  if (at == name.npos) return false;
  const std::string_view rest = std::string_view(name).substr(at + word.size());
  const bool ends =
      rest.empty() || rest == ".weight" || rest == ".default" || rest == ".default.weight";
  if (ends) name.resize(at);
  return ends;
}

// The name in the base model of a tensor that stands for itself.
std::string whole_name(std::string name) {
  for (const std::string_view part :
       {".base_layer", ".modules_to_save.default", ".modules_to_save", ".original_module"}) {
    if (const size_t at = name.rfind(part); at != name.npos) name.erase(at, part.size());
  }
  return name;
}

void add(AdapterTensors& adapter, const TensorSpec& tensor) {
  if (!tensor.name.starts_with(kAdapterPrefix)) {
    refuse(*adapter.source, tensor,
           fmt::format("expected a name that begins with {}", kAdapterPrefix));
  }
  std::string name = tensor.name.substr(kAdapterPrefix.size());
  const auto set = [&](const TensorSpec* AdapterModule::*place, bool embedding) {
    AdapterModule& module = adapter.modules[name];
    if (module.*place) refuse(*adapter.source, tensor, "expected once, got it again");
    module.*place = &tensor;
    module.embedding |= embedding;
  };
  if (take_suffix(name, ".lora_A")) return set(&AdapterModule::a, false);
  if (take_suffix(name, ".lora_B")) return set(&AdapterModule::b, false);
  if (take_suffix(name, ".lora_embedding_A")) return set(&AdapterModule::a, true);
  if (take_suffix(name, ".lora_embedding_B")) return set(&AdapterModule::b, true);
  if (take_suffix(name, ".lora_magnitude_vector")) return set(&AdapterModule::magnitude, false);
  if (name.find("lora_") != name.npos) {
    refuse(*adapter.source, tensor, "expected lora_A, lora_B or lora_magnitude_vector");
  }
  if (!adapter.whole.emplace(whole_name(name), &tensor).second) {
    refuse(*adapter.source, tensor, "expected once, got it again");
  }
}

void check_module(const AdapterTensors& adapter, const std::string& name,
                  const AdapterModule& module) {
  const TensorSpec& any = module.a ? *module.a : module.b ? *module.b : *module.magnitude;
  if (!module.a || !module.b) {
    refuse(*adapter.source, any, fmt::format("expected lora_A and lora_B of {}", name));
  }
  if (module.a->shape.size() != 2 || module.b->shape.size() != 2 ||
      module.a->shape[0] != module.b->shape[1] || module.a->shape[0] < 1) {
    refuse(*adapter.source, any,
           fmt::format("expected lora_A [rank, in] and lora_B [out, rank], got {} and {}",
                       formats::shape_text(module.a->shape), formats::shape_text(module.b->shape)));
  }
  if (module.magnitude && module.magnitude->num_elements() != module.b->shape[0]) {
    refuse(*adapter.source, *module.magnitude,
           fmt::format("expected {} numbers, got {}", module.b->shape[0],
                       formats::shape_text(module.magnitude->shape)));
  }
  for (const TensorSpec* tensor : {module.a, module.b, module.magnitude}) {
    if (tensor && !formats::is_floating_point(tensor->dtype)) {
      refuse(*adapter.source, *tensor, "expected floating-point numbers");
    }
  }
}

}  // namespace

AdapterTensors adapter_tensors(std::shared_ptr<const formats::TensorSource> source) {
  AdapterTensors adapter;
  adapter.source = std::move(source);
  for (const TensorSpec& tensor : adapter.source->tensors()) add(adapter, tensor);
  for (const auto& [name, module] : adapter.modules) check_module(adapter, name, module);
  return adapter;
}

AdapterTensors open_adapter_tensors(const fs::path& folder) {
  const fs::path pickled = folder / "adapter_model.bin";
  const bool only_pickled =
      !fs::exists(folder / "adapter_model.safetensors") && fs::exists(pickled);
  return adapter_tensors(formats::open_tensor_source(only_pickled ? pickled : folder));
}

std::vector<float> float_values(const formats::TensorSource& source, const TensorSpec& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
  if (const auto view = source.view(tensor)) {
    formats::to_float32(tensor.dtype, *view, values);
    return values;
  }
  std::vector<std::byte> bytes(tensor.num_bytes());
  source.read(tensor, bytes);
  formats::to_float32(tensor.dtype, bytes, values);
  return values;
}

}  // namespace qianli::convert
