// Remembers the ids of short pieces: most words of a text have been seen before. Bounded: one place
// per hash, the newer piece displaces the older.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace qianli::text {

class PieceCache {
 public:
  static constexpr size_t kMaxBytes = 31;
  static constexpr size_t kMaxIds = 7;

  // A piece as the cache compares it: padded with zeros, the length in the last byte.
  struct Key {
    uint64_t word[4] = {0, 0, 0, 0};
    explicit Key(std::string_view piece) {
      std::memcpy(word, piece.data(), piece.size());
      word[3] |= static_cast<uint64_t>(piece.size()) << 56;
    }
    size_t hash() const {
      uint64_t h = word[0] * 0x9E3779B97F4A7C15ull;
      h = (h ^ (h >> 32) ^ word[1]) * 0xC2B2AE3D27D4EB4Full;
      h = (h ^ (h >> 29) ^ word[2]) * 0x165667B19E3779F9ull;
      h = (h ^ (h >> 31) ^ word[3]) * 0x9E3779B97F4A7C15ull;
      return static_cast<size_t>(h >> (64 - kBits));
    }
  };

  PieceCache() : slots_(size_t{1} << kBits) {}

  // The ids of the piece, empty when it is not remembered. (No piece has no ids: those are not
  // kept.)
  std::span<const int32_t> find(const Key& key, size_t hash) const {
    const Slot& slot = slots_[hash];
    if (std::memcmp(slot.key, key.word, sizeof slot.key) != 0) return {};
    return {slot.ids, static_cast<size_t>(slot.count)};
  }
  void keep(const Key& key, size_t hash, std::span<const int32_t> ids) {
    if (ids.empty() || ids.size() > kMaxIds) return;
    Slot& slot = slots_[hash];
    std::memcpy(slot.key, key.word, sizeof slot.key);
    std::memcpy(slot.ids, ids.data(), ids.size_bytes());
    slot.count = static_cast<int32_t>(ids.size());
  }

 private:
  static constexpr int kBits = 14;
  struct alignas(64) Slot {
    uint64_t key[4] = {0, 0, 0, 0};
    int32_t ids[kMaxIds] = {};
    int32_t count = 0;
  };
  std::vector<Slot> slots_;  // 1 MiB
};

}  // namespace qianli::text
