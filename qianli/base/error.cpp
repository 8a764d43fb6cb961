#include "qianli/base/error.h"

namespace qianli {
namespace {

// A sentence that ends already, as that of a wrapped error does, gets no second dot.
void append_sentence(std::string& text, std::string_view sentence) {
  text.append(sentence);
  if (sentence.empty() || std::string_view(".?!").find(sentence.back()) == std::string_view::npos)
    text.push_back('.');
}

std::string compose(std::string_view component, std::string_view problem, std::string_view hint) {
  std::string text;
  text.append("[").append(component).append("] ");
  append_sentence(text, problem);
  if (!hint.empty()) append_sentence(text.append(" Hint: "), hint);
  return text;
}

}  // namespace

Error::Error(ExitCode code, std::string_view component, std::string_view problem,
             std::string_view hint)
    : std::runtime_error(compose(component, problem, hint)), code_(code) {}

}  // namespace qianli
