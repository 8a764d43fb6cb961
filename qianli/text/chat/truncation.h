// How much of a question and of its answer stays where both are too long (MindSpeed-LLM's rules,
// which LLaMA-Factory made). Both are cut from the right.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/text/chat/encode_turns.h"

namespace qianli::text::chat {

struct TurnLengths {
  int64_t source = 0, target = 0;
  bool operator==(const TurnLengths&) const = default;
};

enum class Truncation {
  // The answer gets its share of the budget, the question what the answer does not use.
  kProportional,
  // A side that is shorter than half of the budget stays whole; else as above.
  kTwoSided,
};

// What stays of a turn in a budget of tokens, at least 1.
TurnLengths truncated(const TurnLengths& turn, int64_t budget, Truncation rule);

// Cuts the turns so that all together have `budget` tokens, each in what the turns before left
// over; turns for which nothing is left go. `from_last`: the last turn comes first. True where
// anything was cut.
bool truncate_turns(std::vector<EncodedTurn>& turns, int64_t budget, Truncation rule,
                    bool from_last);

}  // namespace qianli::text::chat
