// Adapters: opened, merged into models, written.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/convert/adapter/config.h"
#include "qianli/convert/adapter/tensors.h"
#include "qianli/convert/model_source.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"

namespace qianli::convert {

// As PEFT tells it.
struct Adapter {
  AdapterConfig config;
  AdapterTensors tensors;
};

// adapter_config.json and adapter_model.safetensors (or .bin) of the folder. Experts that PEFT has
// in one tensor are told one by one, as the model of the table `base` has them.
Adapter open_peft_adapter(const std::filesystem::path& folder, const Table& base);

// The base with the adapter merged into it, whatever form it was read from: its tensors get Hugging
// Face's names, and what lies under these is merged as it is asked for. Throws CheckpointError
// where a tensor of the adapter has no place in the base or another shape than it needs.
std::unique_ptr<ModelSource> with_adapter(std::unique_ptr<ModelSource> base,
                                          const Adapter& adapter);

// An adapter to convert. Its table has, for each layer of the form that it was read from, A [rank,
// in] and for each parameter in that layer B [out, rank]; `tensors` are PEFT's, told in these.
struct AdapterSource {
  std::shared_ptr<ModelSource> model;
  std::vector<ForeignTensor> tensors;
  OrderedJson config;  // adapter_config.json
};

Adapter as_peft(const AdapterSource& source);

// A PEFT folder; a target that exists is refused. Numbers keep their type unless `dtype` is given.
void write_peft_adapter(const AdapterSource& adapter, const std::filesystem::path& target,
                        std::optional<formats::Dtype> dtype, const ProgressFunction& progress);
// Reads such a folder back, copies too (see verify.h).
Proof verify_peft_adapter(const AdapterSource& adapter, const std::filesystem::path& target);

}  // namespace qianli::convert
