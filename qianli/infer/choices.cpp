#include "qianli/infer/choices.h"

#include <algorithm>

namespace qianli::infer {

Choices::Next Choices::behind(std::span<const int64_t> generated) const {
  Next next;
  for (const auto& choice : choices_) {
    if (choice.size() < generated.size() ||
        !std::equal(generated.begin(), generated.end(), choice.begin()))
      continue;
    if (choice.size() == generated.size()) {
      next.may_end = true;
    } else {
      next.ids.push_back(choice[generated.size()]);
    }
  }
  std::ranges::sort(next.ids);
  next.ids.erase(std::unique(next.ids.begin(), next.ids.end()), next.ids.end());
  return next;
}

}  // namespace qianli::infer
