#include "qianli/infer/block_pool.h"

namespace qianli::infer {

BlockPool::BlockPool(int64_t blocks, int64_t block_size)
    : block_size_(block_size), entries_(static_cast<size_t>(blocks)) {
  for (int64_t block = 0; block < blocks; ++block) free_.emplace(0, block);
}

std::optional<int64_t> BlockPool::take() {
  if (free_.empty()) return std::nullopt;
  const int64_t block = free_.begin()->second;
  free_.erase(free_.begin());
  Entry& entry = entries_[static_cast<size_t>(block)];
  if (!entry.key.empty()) known_.erase(entry.key);
  entry = {.holders = 1};
  return block;
}

void BlockPool::hold(int64_t block) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  if (entry.holders++ == 0) free_.erase({entry.stamp, block});
}

void BlockPool::release(int64_t block) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  if (--entry.holders > 0) return;
  entry.stamp = entry.key.empty() ? 0 : next_stamp_++;
  free_.emplace(entry.stamp, block);
}

std::string BlockPool::key_of(Chain before, std::span<const int64_t> tokens) {
  std::string key(reinterpret_cast<const char*>(&before), sizeof(before));
  key.append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
  return key;
}

BlockPool::Chain BlockPool::publish(int64_t block, Chain before, std::span<const int64_t> tokens) {
  std::string key = key_of(before, tokens);
  const auto [place, is_new] = known_.try_emplace(std::move(key), Known{block, next_chain_});
  if (is_new) {
    ++next_chain_;
    entries_[static_cast<size_t>(block)].key = place->first;
  }
  return place->second.chain;
}

BlockPool::Match BlockPool::match(std::span<const int64_t> tokens, Chain start) {
  Match match{.blocks = {}, .chain = start};
  const auto size = static_cast<size_t>(block_size_);
  for (size_t first = 0; first + size < tokens.size(); first += size) {
    const auto found = known_.find(key_of(match.chain, tokens.subspan(first, size)));
    if (found == known_.end()) break;
    hold(found->second.block);
    match.blocks.push_back(found->second.block);
    match.chain = found->second.chain;
  }
  return match;
}

}  // namespace qianli::infer
