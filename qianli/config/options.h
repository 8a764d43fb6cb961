// Every option, once: key, help, unit, range and the Megatron-LM or MindSpeed-LLM flag of the same
// meaning. Included by field.cpp only; the readers, the help and the schema are made from it.
#pragma once

#include "qianli/config/options/model.h"
#include "qianli/config/options/model_moe.h"
#include "qianli/config/options/model_parts.h"
#include "qianli/config/options/model_rope.h"
#include "qianli/config/options/run.h"
#include "qianli/config/options/train.h"
#include "qianli/config/options/tune.h"
