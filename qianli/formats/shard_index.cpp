#include "qianli/formats/shard_index.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/json.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr uint64_t kMaxIndexBytes = uint64_t{256} << 20;

}  // namespace

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() < 256 &&
         std::ranges::none_of(name, [](char c) {
           return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
         });
}

std::map<std::string, std::string> read_weight_map(const fs::path& path, FileRole role) {
  const Json index = read_json(path, role, kMaxIndexBytes);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    reject(role, path.string(), "expected an object 'weight_map'");
  }
  std::map<std::string, std::string> weights;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string() || !is_plain_name(file.get_ref<const std::string&>())) {
      reject(role, path.string(),
             fmt::format("tensor {}: expected the name of a file in this folder, got {}",
                         shown_name(tensor), shown_name(file.dump(-1, ' ', true))));
    }
    weights.emplace(tensor, file.get<std::string>());
  }
  if (weights.empty()) reject(role, path.string(), "'weight_map' names no tensor");
  return weights;
}

}  // namespace qianli::formats
