// Data sets under names, as LLaMA-Factory and MindSpeed-LLM declare them in
// FOLDER/dataset_info.json:
//
//   {"a": {"file_name": "a.json", "formatting": "alpaca", "columns": {"prompt": "question"}},
//    "b": {"file_name": "b", "formatting": "sharegpt", "tags": {"role_tag": "role"}}}
//
// file_name is a file or folder in FOLDER; formatting (alpaca) alpaca, sharegpt or openai; columns
// and tags as --map-keys; ranking marks preference pairs; num_samples takes the first rows.
#pragma once

#include <string>
#include <vector>

#include "qianli/data/instruction/prepare.h"

namespace qianli::data {

// One for each name, in their order. ConfigError for a name or key that is not known, for data sets
// that lie elsewhere (hf_hub_url, script_url, ...), and where they are for different tasks;
// DataError where rows are not understood.
std::vector<KnownRows> listed_rows(const fs::path& folder, const std::vector<std::string>& names);

}  // namespace qianli::data
