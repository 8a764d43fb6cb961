#include "qianli/text/chat/truncation.h"

#include <algorithm>

namespace qianli::text::chat {
namespace {

// In double precision, as Python computes int(budget * (target / (source + target))).
int64_t share(const TurnLengths& turn, int64_t budget) {
  const auto sum = static_cast<double>(turn.source + turn.target);
  if (sum == 0) return 0;
  return static_cast<int64_t>(static_cast<double>(budget) *
                              (static_cast<double>(turn.target) / sum));
}

bool shorten(std::vector<int32_t>& ids, int64_t length) {
  if (static_cast<int64_t>(ids.size()) <= length) return false;
  ids.resize(static_cast<size_t>(length));
  return true;
}

}  // namespace

TurnLengths truncated(const TurnLengths& turn, int64_t budget, Truncation rule) {
  int64_t most_target;
  if (rule == Truncation::kProportional) {
    most_target = std::max<int64_t>(share(turn, budget), 1);
  } else if (turn.target * 2 < budget) {
    most_target = budget;
  } else if (turn.source * 2 < budget) {
    most_target = budget - turn.source;
  } else {
    most_target = share(turn, budget);
  }
  const int64_t target = std::min(most_target, turn.target);
  return {std::min(std::max<int64_t>(budget - target, 0), turn.source), target};
}

bool truncate_turns(std::vector<EncodedTurn>& turns, int64_t budget, Truncation rule,
                    bool from_last) {
  bool cut = false;
  size_t kept = 0;
  if (from_last) std::reverse(turns.begin(), turns.end());
  for (; kept < turns.size() && budget > 0; ++kept) {
    EncodedTurn& turn = turns[kept];
    const TurnLengths whole{static_cast<int64_t>(turn.source.size()),
                            static_cast<int64_t>(turn.target.size())};
    const TurnLengths stays = truncated(whole, budget, rule);
    cut |= shorten(turn.source, stays.source);
    cut |= shorten(turn.target, stays.target);
    budget -= stays.source + stays.target;
  }
  cut |= kept < turns.size();
  turns.resize(kept);
  if (from_last) std::reverse(turns.begin(), turns.end());
  return cut;
}

}  // namespace qianli::text::chat
