// In which order keys visit the ranks of a context ring.
#pragma once

#include <cstdint>

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
};

}  // namespace qianli::plan
