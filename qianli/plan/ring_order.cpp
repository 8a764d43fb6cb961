#include "qianli/plan/ring_order.h"

namespace qianli::plan {
namespace {

int64_t modulo(int64_t a, int64_t n) { return (a % n + n) % n; }

}  // namespace

int64_t RingOrder::owner(int64_t place, int64_t step) const {
  return modulo(place / window - step / window, places / window) * window +
         modulo(place % window - step % window, window);
}

int64_t RingOrder::place_of(int64_t owner, int64_t step) const {
  return modulo(owner / window + step / window, places / window) * window +
         modulo(owner % window + step % window, window);
}

RingOrder::Source RingOrder::source(int64_t place, int64_t step) const {
  const int64_t own = place / window * window;
  if (step % window != 0) return {own + modulo(place % window - 1, window), step - 1};
  return {modulo(own - window, places) + place % window, step - window};
}

std::set<std::pair<int64_t, int64_t>> RingOrder::ways() const {
  std::set<std::pair<int64_t, int64_t>> all;
  for (int64_t place = 0; place < places; ++place) {
    for (int64_t step = 0; step < places; ++step) {
      if (step > 0) all.emplace(source(place, step).place, place);
      // Gradients go with the keys' block, and after the last step to its owner.
      const int64_t whose = owner(place, step);
      all.emplace(place, step + 1 < places ? place_of(whose, step + 1) : whose);
    }
  }
  std::erase_if(all, [](const auto& way) { return way.first == way.second; });
  return all;
}

}  // namespace qianli::plan
