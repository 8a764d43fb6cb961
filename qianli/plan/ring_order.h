// In which order keys visit the ranks of a context ring.
#pragma once

#include <cstdint>
#include <set>
#include <utility>

namespace qianli::plan {

// In which order keys visit the places of a ring, inside windows of w and from window to window
// (w = 1: from place to place). Each visits every place once, its own first.
struct RingOrder {
  int64_t places, window;

  // Whose keys are at `place` at `step`, and where those of `owner` are.
  int64_t owner(int64_t place, int64_t step) const;
  int64_t place_of(int64_t owner, int64_t step) const;
  // Keys for a step > 0 come from this place, which sends them on when its own `step` begins.
  struct Source {
    int64_t place, step;
  };
  Source source(int64_t place, int64_t step) const;
  // Pairs of places, from the first to the second of which keys or their gradients go. The order in
  // which a place asks for what comes from another is the order in which that one sends it.
  std::set<std::pair<int64_t, int64_t>> ways() const;
};

}  // namespace qianli::plan
