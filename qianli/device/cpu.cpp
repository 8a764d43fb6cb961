// What the processor is and can do, from /proc/cpuinfo.
#include <fstream>

#include "qianli/base/strings.h"
#include "qianli/device/device.h"

namespace qianli::device {
namespace {

std::string cpuinfo_field(const std::string& wanted) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    if (trim(std::string_view(line).substr(0, colon)) == wanted) {
      return std::string(trim(std::string_view(line).substr(colon + 1)));
    }
  }
  return {};
}

}  // namespace

std::string cpu_name() {
  const std::string name = cpuinfo_field("model name");
  return name.empty() ? "unknown processor" : name;
}

std::vector<std::string> cpu_features() {
  const auto flags = split(
      cpuinfo_field("flags").empty() ? cpuinfo_field("Features") : cpuinfo_field("flags"), ' ');
  std::vector<std::string> found;
  for (const char* feature :
       {"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16"}) {
    for (const auto& flag : flags) {
      if (flag == feature) found.push_back(feature);
    }
  }
  return found;
}

}  // namespace qianli::device
