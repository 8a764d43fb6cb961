#include "qianli/data/instruction/dataset_info.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::data {
namespace {

constexpr const char* kFile = "dataset_info.json";

class Entry {
 public:
  Entry(const OrderedJson& json, const std::string& name, const std::string& source)
      : json_(json), place_(fmt::format("{}: '{}'", source, name)) {
    if (!json.is_object()) refuse("expected an object");
    check_keys();
  }

  RowsOptions options(const fs::path& folder) const {
    RowsOptions options{.inputs = {folder / text("file_name", "")}};
    const std::string formatting = text("formatting", "alpaca");
    if (formatting != "alpaca" && formatting != "sharegpt" && formatting != "openai")
      refuse(
          fmt::format("expected the formatting alpaca, sharegpt or openai, got '{}'", formatting));
    options.format = row_format(formatting);
    options.task = flag("ranking") ? InstructionTask::kPreference : InstructionTask::kSft;
    OrderedJson map = json_.contains("columns") ? json_["columns"] : OrderedJson::object();
    if (!map.is_object()) refuse("expected an object under 'columns'");
    if (json_.contains("tags")) map["tags"] = json_["tags"];
    if (!map.empty()) options.map_keys = map.dump();
    if (json_.contains("num_samples")) options.max_rows = count("num_samples");
    return options;
  }

 private:
  [[noreturn]] void refuse(const std::string& problem, const std::string& hint = {}) const {
    throw ConfigError("data", fmt::format("{}: {}", place_, problem), hint);
  }

  void check_keys() const {
    static const std::set<std::string> kElsewhere = {"hf_hub_url", "ms_hub_url", "om_hub_url",
                                                     "script_url", "cloud_file_name"};
    const std::vector<std::string> known = {"file_name", "formatting", "columns",
                                            "tags",      "ranking",    "num_samples"};
    for (const auto& [key, value] : json_.items()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      if (!kElsewhere.count(key)) {
        refuse(
            fmt::format("expected {}, got '{}'{}", join(known, ", "), key, suggestion(key, known)));
      }
      // LLaMA-Factory's list names some data sets here and on a hub.
      if (json_.contains("file_name")) continue;
      refuse(fmt::format("expected a file_name, got {}", key),
             "download the data set and name its file or folder");
    }
    if (!json_.contains("file_name")) refuse("expected a file_name, got none");
  }

  std::string text(const char* key, const std::string& absent) const {
    if (!json_.contains(key)) return absent;
    if (json_[key].is_string()) return json_[key].get<std::string>();
    refuse(fmt::format("expected a text under '{}', got {}", key, json_[key].dump()));
  }

  bool flag(const char* key) const {
    if (!json_.contains(key)) return false;
    if (json_[key].is_boolean()) return json_[key].get<bool>();
    refuse(fmt::format("expected true or false under '{}', got {}", key, json_[key].dump()));
  }

  int64_t count(const char* key) const {
    if (json_[key].is_number_unsigned() && json_[key].get<uint64_t>() > 0)
      return json_[key].get<int64_t>();
    refuse(fmt::format("expected a number above 0 under '{}', got {}", key, json_[key].dump()));
  }

  const OrderedJson& json_;
  std::string place_;
};

}  // namespace

std::vector<KnownRows> listed_rows(const fs::path& folder, const std::vector<std::string>& names) {
  const fs::path path = folder / kFile;
  const OrderedJson info = parse_ordered_json(
      read_file(path, FileRole::kConfig, uint64_t{16} << 20), path.string(), FileRole::kConfig);
  if (!info.is_object())
    throw ConfigError("data", fmt::format("{}: expected an object of data sets", path.string()));
  std::vector<std::string> known;
  for (const auto& [name, entry] : info.items()) known.push_back(name);
  std::vector<KnownRows> sets;
  for (const std::string& name : names) {
    if (!info.contains(name)) {
      throw ConfigError("data",
                        fmt::format("{}: expected a data set of this list, got '{}'{}",
                                    path.string(), name, suggestion(name, known)),
                        known.size() > 40 ? "" : "known are " + join(known, ", "));
    }
    sets.push_back(look_at_rows(Entry(info[name], name, path.string()).options(folder)));
    if (sets.back().task == sets[0].task) continue;
    throw ConfigError(
        "data", fmt::format("expected data sets for one task, got {} in '{}' and {} in '{}'",
                            name_of(sets[0].task), names[0], name_of(sets.back().task), name));
  }
  return sets;
}

}  // namespace qianli::data
