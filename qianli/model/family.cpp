#include "qianli/model/family.h"

#include <fmt/core.h>

#include <array>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/model/families/families.h"

namespace qianli::model {

std::span<const Family* const> families() {
  static const std::array kFamilies{
      &gpt2_family(),     //
      &llama_family(),    //
      &mistral_family(),  //
      &qwen2_family(),    //
      &qwen3_family(),    //
  };
  return kFamilies;
}

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const Family* family : families()) names.push_back(family->model_type);
  return names;
}

const Family& find_family(std::string_view model_type) {
  for (const Family* family : families()) {
    if (family->model_type == model_type) return *family;
  }
  const auto known = family_names();
  throw ConfigError("model",
                    fmt::format("expected a known model family, got '{}'{}",
                                model_type.substr(0, 200), suggestion(model_type, known)),
                    "known families: " + join(known, ", "));
}

}  // namespace qianli::model
