// Which blocks of a cache are taken, by how many sequences, and what tokens the full ones hold, so
// that sequences that begin alike share them.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace qianli::infer {

class BlockPool {
 public:
  BlockPool(int64_t blocks, int64_t block_size);

  int64_t block_size() const { return block_size_; }
  int64_t size() const { return static_cast<int64_t>(entries_.size()); }
  // Blocks that nobody holds. Known ones among them are forgotten when they are taken.
  int64_t available() const { return static_cast<int64_t>(free_.size()); }

  // A block for one holder: first those of unknown content, then the one let go longest ago.
  std::optional<int64_t> take();
  void hold(int64_t block);  // one holder more
  void release(int64_t block);

  // A run of full blocks from the first token on, as the chain of what they hold.
  using Chain = uint64_t;
  static constexpr Chain kStart = 0;
  // What sequences with an adapter leave is not what others do: their chains begin elsewhere.
  static Chain start_of(int64_t adapter) { return kStart - static_cast<Chain>(adapter + 1); }
  // Makes known that `block` holds these tokens behind `before`; where another block is known for
  // them already, that one stays. Returns the chain with them.
  Chain publish(int64_t block, Chain before, std::span<const int64_t> tokens);
  struct Match {
    std::vector<int64_t> blocks;  // held for the caller
    Chain chain = kStart;
  };
  // The longest known run of full blocks at the start of `tokens`, leaving at least one token.
  Match match(std::span<const int64_t> tokens, Chain start = kStart);

 private:
  struct Entry {
    int64_t holders = 0;
    uint64_t stamp = 0;  // of the release; 0: content unknown
    std::string key;     // empty: unknown
  };
  static std::string key_of(Chain before, std::span<const int64_t> tokens);

  int64_t block_size_;
  std::vector<Entry> entries_;
  std::set<std::pair<uint64_t, int64_t>> free_;  // (stamp, block)
  struct Known {
    int64_t block;
    Chain chain;
  };
  std::unordered_map<std::string, Known> known_;
  uint64_t next_stamp_ = 1;
  Chain next_chain_ = kStart + 1;
};

}  // namespace qianli::infer
