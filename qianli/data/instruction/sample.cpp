#include "qianli/data/instruction/sample.h"

#include <algorithm>

#include "qianli/text/chat/encode_turns.h"

namespace qianli::data {

int64_t Sample::longest() const {
  size_t longest = 0;
  for (const auto& field : fields) longest = std::max(longest, field.size());
  return static_cast<int64_t>(longest);
}

int64_t Sample::tokens(const std::vector<std::string>& names) const {
  size_t tokens = 0;
  for (size_t f = 0; f < names.size(); ++f) {
    if (names[f].ends_with("input_ids")) tokens += fields[f].size();
  }
  return static_cast<int64_t>(tokens);
}

int64_t Sample::trained(const std::vector<std::string>& names) const {
  int64_t trained = 0;
  // The labels of a prompt are another text.
  const bool has_labels = names.size() > 1 && fields[0].size() == fields[1].size();
  for (size_t f = 0; f < names.size() && has_labels; ++f) {
    if (names[f].ends_with("labels"))
      trained += std::count_if(fields[f].begin(), fields[f].end(),
                               [](int32_t label) { return label != text::chat::kIgnored; });
  }
  return trained;
}

}  // namespace qianli::data
