// The arguments that Megatron stores beside its weights.
#pragma once

#include "qianli/convert/megatron/layout.h"
#include "qianli/formats/dtype.h"
#include "qianli/formats/pickle.h"
#include "qianli/model/spec.h"

namespace qianli::convert {

// An argparse.Namespace of what describes the model and the layout, under Megatron's names, and
// `qianli_config`: the model's config.json as text, so that the checkpoint can be read back without
// help.
formats::Value megatron_arguments(const model::ModelSpec& spec, const MegatronLayout& layout,
                                  formats::Dtype dtype);

}  // namespace qianli::convert
