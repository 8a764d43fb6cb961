// The families, one file each beside this one.
#pragma once

#include "qianli/model/family.h"

namespace qianli::model {

const Family& gpt2_family();
const Family& llama_family();
const Family& mistral_family();
const Family& qwen2_family();
const Family& qwen3_family();

}  // namespace qianli::model
