// Prepared data sets put one behind the other.
#pragma once

#include <string>
#include <vector>

#include "qianli/base/file.h"

namespace qianli::data {

struct MergedGroup {
  std::string key;
  std::vector<fs::path> parts;  // prefixes, in their order
  size_t sequences = 0;
};

// For every key all .bin/.idx pairs of the folder whose names contain it, by name, become
// PREFIX_KEY.{bin,idx} (MindSpeed-LLM's --merge-group-keys). DataError where a file has no partner,
// where a key finds nothing, or where the keys give different numbers of sequences, which belong
// together sample by sample; ConfigError where the result would lie among its parts.
std::vector<MergedGroup> merge_groups(const fs::path& folder, const std::vector<std::string>& keys,
                                      const fs::path& prefix);

}  // namespace qianli::data
