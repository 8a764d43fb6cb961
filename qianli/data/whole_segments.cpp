// An order in which segments lie in as few places as they can.
#include <algorithm>
#include <numeric>

#include "qianli/data/token_order.h"

namespace qianli::data {
namespace {

class Packing {
 public:
  Packing(const std::vector<int64_t>& starts, int64_t places)
      : starts_(starts), runs_(static_cast<size_t>(places)) {
    const auto shares = even_starts(starts.back(), places);
    for (size_t place = 0; place < runs_.size(); ++place)
      room_.push_back(shares[place + 1] - shares[place]);
  }

  std::vector<TokenRun> order() {
    std::vector<size_t> by_length(starts_.size() - 1);
    std::iota(by_length.begin(), by_length.end(), size_t{0});
    std::ranges::stable_sort(by_length, std::ranges::greater(),
                             [&](size_t s) { return starts_[s + 1] - starts_[s]; });
    std::vector<TokenRun> over;
    for (const size_t segment : by_length) {
      TokenRun rest{starts_[segment], starts_[segment + 1]};
      fill_empty_places(rest);
      if (rest.begin < rest.end && !put_whole(rest)) over.push_back(rest);
    }
    for (const TokenRun& run : over) put_in_pieces(run);
    std::vector<TokenRun> all;
    for (const auto& runs : runs_) all.insert(all.end(), runs.begin(), runs.end());
    return all;
  }

 private:
  void put(size_t place, TokenRun& rest, int64_t count) {
    runs_[place].push_back({rest.begin, rest.begin + count});
    room_[place] -= count;
    rest.begin += count;
  }
  // As long as it is longer than a place's share.
  void fill_empty_places(TokenRun& rest) {
    for (size_t place = 0; place < runs_.size(); ++place) {
      if (runs_[place].empty() && room_[place] > 0 && rest.end - rest.begin >= room_[place])
        put(place, rest, room_[place]);
    }
  }
  // Where it leaves least room.
  bool put_whole(TokenRun rest) {
    const int64_t length = rest.end - rest.begin;
    size_t best = runs_.size();
    for (size_t place = 0; place < runs_.size(); ++place) {
      if (room_[place] >= length && (best == runs_.size() || room_[place] < room_[best]))
        best = place;
    }
    if (best == runs_.size()) return false;
    put(best, rest, length);
    return true;
  }
  // In the largest rooms.
  void put_in_pieces(TokenRun rest) {
    while (rest.begin < rest.end) {
      const auto place = static_cast<size_t>(std::ranges::max_element(room_) - room_.begin());
      put(place, rest, std::min(room_[place], rest.end - rest.begin));
    }
  }

  const std::vector<int64_t>& starts_;
  std::vector<std::vector<TokenRun>> runs_;  // by place
  std::vector<int64_t> room_;
};

}  // namespace

std::vector<TokenRun> whole_segments(const std::vector<int64_t>& segment_starts, int64_t places) {
  return Packing(segment_starts, places).order();
}

}  // namespace qianli::data
