#include "qianli/text/trie.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <deque>
#include <utility>

#include "qianli/base/error.h"

namespace qianli::text {
namespace {

constexpr size_t kBlock = 256;
constexpr size_t kMaxUnits = size_t{1} << 25;
// A block that could not take this many nodes in a row is left as it is.
constexpr int kMaxFailures = 6;
constexpr size_t kOpenBlocks = 12;

}  // namespace

class TrieBuilder {
 public:
  TrieBuilder(std::vector<Trie::Entry> entries, std::vector<Trie::Unit>& units)
      : entries_(std::move(entries)), units_(units) {}

  void build() {
    std::stable_sort(entries_.begin(), entries_.end(),
                     [](const auto& a, const auto& b) { return a.key < b.key; });
    add_block();
    take(Trie::kRoot);
    todo_.push_back({0, entries_.size(), 0, Trie::kRoot});
    while (!todo_.empty()) {
      const Range range = todo_.back();
      todo_.pop_back();
      place_children(range);
    }
  }

 private:
  // Entries [begin, end) share `depth` bytes, which lead to `node`.
  struct Range {
    size_t begin, end, depth;
    uint32_t node;
  };
  struct Open {
    size_t block;
    size_t free_count = kBlock;
    int failures = 0;
    std::array<uint64_t, kBlock / 64> free = {~0ull, ~0ull, ~0ull, ~0ull};
    bool is_free(size_t slot) const { return (free[slot / 64] >> slot % 64 & 1) != 0; }
  };

  void place_children(const Range& range) {
    children_.clear();
    for (size_t i = range.begin; i < range.end;) {
      const std::string_view key = entries_[i].key;
      if (key.size() == range.depth) {
        units_[range.node].value = entries_[i++].value;
        continue;
      }
      const auto label = static_cast<unsigned char>(key[range.depth]);
      size_t end = i;
      while (end < range.end && entries_[end].key.size() > range.depth &&
             static_cast<unsigned char>(entries_[end].key[range.depth]) == label) {
        ++end;
      }
      children_.push_back({{i, end, range.depth + 1, 0}, label});
      i = end;
    }
    if (children_.empty()) return;
    const uint32_t base = find_base();
    units_[range.node].base = base;
    for (auto& [child, label] : children_) {
      child.node = base ^ label;
      take(child.node);
      units_[child.node].parent = range.node;
      todo_.push_back(child);
    }
  }

  // A base whose places for all labels are free.
  uint32_t find_base() {
    for (auto open = open_.begin(); open != open_.end();) {
      if (open->free_count >= children_.size()) {
        const size_t low = low_bits_that_fit(*open);
        if (low < kBlock) return static_cast<uint32_t>(open->block * kBlock + low);
      }
      const bool closes = ++open->failures > kMaxFailures || open->free_count == 0;
      open = closes ? open_.erase(open) : open + 1;
    }
    add_block();
    return static_cast<uint32_t>(open_.back().block * kBlock);
  }

  // kBlock where none fits.
  size_t low_bits_that_fit(const Open& open) const {
    for (size_t word = 0; word < open.free.size(); ++word) {
      for (uint64_t bits = open.free[word]; bits != 0; bits &= bits - 1) {
        const size_t slot = word * 64 + static_cast<size_t>(std::countr_zero(bits));
        const size_t low = slot ^ children_.front().label;
        if (std::all_of(children_.begin(), children_.end(),
                        [&](const Child& child) { return open.is_free(low ^ child.label); })) {
          return low;
        }
      }
    }
    return kBlock;
  }

  void add_block() {
    if (units_.size() + kBlock > kMaxUnits) {
      throw DataError("tokenizer",
                      "expected a vocabulary that fits a table of 2^25 entries, got a larger one");
    }
    open_.push_back({.block = units_.size() / kBlock});
    if (open_.size() > kOpenBlocks) open_.pop_front();
    units_.resize(units_.size() + kBlock);
  }

  void take(uint32_t unit) {
    for (Open& open : open_) {
      if (open.block != unit / kBlock) continue;
      open.free[unit % kBlock / 64] &= ~(1ull << unit % 64);
      --open.free_count;
    }
  }

  struct Child {
    Range range;
    unsigned char label;
  };
  std::vector<Trie::Entry> entries_;
  std::vector<Trie::Unit>& units_;
  std::vector<Range> todo_;
  std::vector<Child> children_;
  std::deque<Open> open_;
};

Trie::Trie(std::vector<Entry> entries) {
  if (!entries.empty()) TrieBuilder(std::move(entries), units_).build();
}

}  // namespace qianli::text
