// The index of a model in shards, model.safetensors.index.json or pytorch_model.bin.index.json.
#pragma once

#include <map>
#include <set>
#include <string>

#include "qianli/base/file.h"

namespace qianli::formats {

// Tensor name -> file name. Refuses an index without `weight_map` and names that leave the folder.
std::map<std::string, std::string> read_weight_map(const fs::path& path, FileRole role);

// A file name inside a folder and nothing else: a foreign index must not reach other files.
bool is_plain_name(std::string_view name);

}  // namespace qianli::formats
