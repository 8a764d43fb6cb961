#include "qianli/plan/ring_order.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace qianli::plan {
namespace {

using Places = std::vector<int64_t>;

Places owners(const RingOrder& order, int64_t place) {
  Places owners;
  for (int64_t step = 0; step < order.places; ++step) owners.push_back(order.owner(place, step));
  return owners;
}

TEST(RingOrder, goes_round_windows_as_the_double_ring_does) {
  EXPECT_EQ(owners({4, 1}, 1), (Places{1, 0, 3, 2}));
  EXPECT_EQ(owners({4, 2}, 0), (Places{0, 1, 2, 3}));
  EXPECT_EQ(owners({4, 2}, 1), (Places{1, 0, 3, 2}));
  EXPECT_EQ(owners({4, 2}, 2), (Places{2, 3, 0, 1}));
  EXPECT_EQ(owners({4, 2}, 3), (Places{3, 2, 1, 0}));
  EXPECT_EQ(owners({8, 2}, 0), (Places{0, 1, 6, 7, 4, 5, 2, 3}));
}

TEST(RingOrder, every_block_comes_from_where_it_was_and_visits_every_place) {
  for (const RingOrder order : {RingOrder{2, 1}, RingOrder{4, 1}, RingOrder{4, 2}, RingOrder{8, 2},
                                RingOrder{8, 4}, RingOrder{6, 3}, RingOrder{4, 4}}) {
    for (int64_t place = 0; place < order.places; ++place) {
      const Places visited = owners(order, place);
      EXPECT_EQ(std::set(visited.begin(), visited.end()).size(), visited.size());
      EXPECT_EQ(visited[0], place);
      for (int64_t step = 0; step < order.places; ++step) {
        const int64_t owner = order.owner(place, step);
        EXPECT_EQ(order.place_of(owner, step), place);
        if (step == 0) continue;
        const auto source = order.source(place, step);
        EXPECT_LT(source.step, step);
        EXPECT_EQ(order.owner(source.place, source.step), owner);
      }
    }
  }
}

// A ring, and two windows: keys on to the neighbour inside and to the place like it in the other;
// gradients inside, and from a window's end to the place behind it in the other.
TEST(RingOrder, names_the_ways_of_keys_and_gradients) {
  using Ways = std::set<std::pair<int64_t, int64_t>>;
  EXPECT_EQ((RingOrder{3, 1}.ways()), (Ways{{0, 1}, {1, 2}, {2, 0}}));
  EXPECT_EQ((RingOrder{4, 2}.ways()), (Ways{{0, 1},
                                            {0, 2},
                                            {0, 3},
                                            {1, 0},
                                            {1, 2},
                                            {1, 3},
                                            {2, 0},
                                            {2, 1},
                                            {2, 3},
                                            {3, 0},
                                            {3, 1},
                                            {3, 2}}));
  EXPECT_TRUE((RingOrder{1, 1}.ways()).empty());
}

}  // namespace
}  // namespace qianli::plan
