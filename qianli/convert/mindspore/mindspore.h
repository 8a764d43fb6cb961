// MindSpore checkpoints: `.ckpt` files under the names of MindSpore Transformers, or of PyTorch.
//
// Names: MindSpore Transformers 1.3, mindformers/models/llama/convert_weight.py and
// research/{qwen2_moe,mixtral,deepseek2,deepseek3}/convert_weight.py. Programs on MSAdapter or
// mindspore.mint keep PyTorch's names, which are those of a Hugging Face folder.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/model_source.h"

namespace qianli::convert {

// Why MindSpore Transformers has no names for the model; empty where it has.
std::string mindformers_lacks(const model::ModelSpec& spec);

// The tensors of such a model. `shape_of` gives the shape of a tensor that is there, null where it
// is not: files hold queries, keys and values apart or together, and matrices of experts as [out,
// in] or, for grouped products, as [in, out]. Without it the names are those to write.
using ShapeOf = std::function<const std::vector<int64_t>*(const std::string& name)>;
std::vector<ForeignTensor> mindformers_tensors(const model::ModelSpec& spec, const Table& table,
                                               const ShapeOf& shape_of = {});

// A `.ckpt` file of MindSpore, or a folder whose weights are such files.
bool is_mindspore(const std::filesystem::path& path);

// The model is that of --config, or of the config.json beside the weights.
std::unique_ptr<ModelSource> open_mindspore(const std::filesystem::path& path,
                                            const SourceOptions& options);

}  // namespace qianli::convert
