// The arguments that Megatron stores beside its weights.
#pragma once

#include "qianli/convert/megatron/layout.h"
#include "qianli/formats/dtype.h"
#include "qianli/formats/pickle.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

// An argparse.Namespace of what describes the model and the layout, under Megatron's names (with
// MindSpeed-LLM's where Megatron-LM has none, or the layout is MindSpeed's), and `qianli_config`:
// the model's config.json as text, so that the checkpoint can be read back without help.
formats::Value megatron_arguments(const model::ModelSpec& spec, const MegatronLayout& layout,
                                  formats::Dtype dtype);

// The switches of `spec` that `arguments` do not tell without `qianli_config`: where a run of
// Megatron built from them would compute something else. One line each; sizes and how a model is
// trained, or which tokens it has, are not among them.
std::vector<std::string> untold_by_arguments(const model::ModelSpec& spec,
                                             const formats::Value& arguments);

// The arguments among them that Megatron-LM itself passes over, though they change what a model
// computes or how it is cut: MindSpeed-LLM's words, by their names.
std::vector<std::string> passed_over_by_megatron(const formats::Value& arguments);

}  // namespace qianli::convert
