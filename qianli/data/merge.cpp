#include "qianli/data/merge.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {
namespace {

using formats::IndexedDataset;
using formats::IndexedDatasetWriter;

std::vector<fs::path> pairs_with(const fs::path& folder, const std::string& key) {
  std::set<fs::path> prefixes;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& path = entry.path();
    const bool counts = path.extension() == ".bin" || path.extension() == ".idx";
    const std::string stem = path.stem().string();
    if (counts && !stem.starts_with('.') && stem.find(key) != stem.npos)
      prefixes.insert(path.parent_path() / path.stem());
  }
  for (const fs::path& prefix : prefixes) {
    if (IndexedDataset::exists(prefix)) continue;
    throw DataError(
        "data", fmt::format("expected both {0}.bin and {0}.idx, got one of them", prefix.string()));
  }
  if (prefixes.empty()) {
    throw DataError("data", fmt::format("expected .bin/.idx pairs with '{}' in their names in {}, "
                                        "got none",
                                        key, folder.string()));
  }
  return {prefixes.begin(), prefixes.end()};
}

}  // namespace

std::vector<MergedGroup> merge_groups(const fs::path& folder, const std::vector<std::string>& keys,
                                      const fs::path& prefix) {
  if (!fs::is_directory(folder))
    throw DataError("data", fmt::format("expected a folder to merge, got {}", folder.string()));
  std::vector<MergedGroup> groups;
  std::vector<std::unique_ptr<IndexedDatasetWriter>> writers;
  create_folder(fs::absolute(prefix).parent_path(), FileRole::kData);
  for (const std::string& key : keys) {
    const fs::path result = prefix.string() + "_" + key;
    MergedGroup group{key, pairs_with(folder, key)};
    const bool among = std::any_of(group.parts.begin(), group.parts.end(), [&](const auto& part) {
      return fs::weakly_canonical(part) == fs::weakly_canonical(result);
    });
    if (among) {
      throw ConfigError(
          "data",
          fmt::format("expected an output outside of {}, got {}", folder.string(), result.string()),
          "what was merged before would be merged again");
    }
    const auto dtype = IndexedDataset::open(group.parts[0]).dtype();
    writers.push_back(std::make_unique<IndexedDatasetWriter>(result, dtype));
    for (const fs::path& part : group.parts) {
      throw_if_stopped("data");
      writers.back()->add_index(part);
    }
    group.sequences = writers.back()->num_sequences();
    groups.push_back(std::move(group));
  }
  for (const MergedGroup& group : groups) {
    if (group.sequences == groups[0].sequences) continue;
    throw DataError("data",
                    fmt::format("expected as many sequences of {} as of {} ({}), got {}", group.key,
                                groups[0].key, groups[0].sequences, group.sequences),
                    "a field of some part is missing");
  }
  for (auto& writer : writers) writer->commit();
  return groups;
}

}  // namespace qianli::data
