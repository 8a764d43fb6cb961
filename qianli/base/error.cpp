#include "qianli/base/error.h"

namespace qianli {
namespace {

std::string compose(std::string_view component, std::string_view problem, std::string_view hint) {
  std::string text;
  text.append("[").append(component).append("] ").append(problem).append(".");
  if (!hint.empty()) text.append(" Hint: ").append(hint).append(".");
  return text;
}

}  // namespace

Error::Error(ExitCode code, std::string_view component, std::string_view problem,
             std::string_view hint)
    : std::runtime_error(compose(component, problem, hint)), code_(code) {}

}  // namespace qianli
