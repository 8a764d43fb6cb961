// A set of byte strings with values, walked byte by byte: a double array. The children of a node
// stand at base ^ byte and name their parent, so one look decides.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace qianli::text {

class Trie {
 public:
  struct Entry {
    std::string_view key;  // not empty; of two with one key the later one counts
    int32_t value;         // not negative
  };
  Trie() = default;
  // Throws DataError where the entries together would need more than 2^25 nodes.
  explicit Trie(std::vector<Entry> entries);

  bool empty() const { return units_.empty(); }
  // Calls found(end, value) for every key that stands in `text` at `from`, the shortest first.
  template <class Found>
  void each_prefix(std::string_view text, size_t from, const Found& found) const {
    if (empty()) return;
    uint32_t node = kRoot;
    for (size_t at = from; at < text.size();) {
      const uint32_t child = units_[node].base ^ static_cast<unsigned char>(text[at]);
      if (units_[child].parent != node) return;
      node = child;
      ++at;
      if (units_[node].value >= 0) found(at, units_[node].value);
    }
  }
  // The longest key that stands in `text` at `from`: its end, or `from` where there is none.
  size_t longest(std::string_view text, size_t from, int32_t& value) const {
    size_t longest_end = from;
    each_prefix(text, from, [&](size_t end, int32_t found) {
      longest_end = end;
      value = found;
    });
    return longest_end;
  }

 private:
  friend class TrieBuilder;
  static constexpr uint32_t kRoot = 0, kNobody = ~0u;
  struct Unit {
    uint32_t base = 0;
    uint32_t parent = kNobody;
    int32_t value = -1;
  };
  std::vector<Unit> units_;  // whole blocks of 256, so that base ^ byte is always inside
};

}  // namespace qianli::text
