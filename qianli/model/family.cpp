#include "qianli/model/family.h"

#include <fmt/core.h>

#include <array>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::model {

#define QIANLI_FAMILY(name) const Family& name##_family();
#include "qianli/model/families/families.inc"
#undef QIANLI_FAMILY

std::span<const Family* const> families() {
#define QIANLI_FAMILY(name) &name##_family(),
  static const std::array kFamilies{
#include "qianli/model/families/families.inc"
  };
#undef QIANLI_FAMILY
  return kFamilies;
}

ForeignNames names_of(const ModelSpec& spec) {
  const Family& family = find_family(spec.family);
  ForeignNames names = family.names;
  if (family.adapt_names != nullptr) family.adapt_names(spec, names);
  return names;
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
