// Tokens and ids of a model: strings in one arena, found by a hash table, by id through offsets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

class Vocabulary {
 public:
  // Room for `count` tokens with ids up to `largest_id`.
  void reserve(size_t count, size_t bytes, int32_t largest_id);
  enum class Added { kYes, kTokenTwice, kIdTwice };
  Added add(std::string_view token, int32_t id);

  std::optional<int32_t> find(std::string_view token) const;
  // Empty for an id without a token.
  std::string_view token(int32_t id) const {
    if (!has(id)) return {};
    const Place& place = places_[static_cast<size_t>(id)];
    return std::string_view(arena_).substr(place.begin, place.size);
  }
  bool has(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < places_.size() &&
           places_[static_cast<size_t>(id)].size != kNone;
  }
  int32_t size() const { return count_; }                                  // tokens
  int32_t end_id() const { return static_cast<int32_t>(places_.size()); }  // largest id + 1

 private:
  static constexpr uint32_t kNone = ~0u;
  struct Place {
    uint32_t begin = 0, size = kNone;
  };
  size_t slot_of(std::string_view token, uint32_t hash) const;
  struct Slot {
    uint32_t hash = 0;
    int32_t id = -1;
  };
  std::string arena_;
  std::vector<Place> places_;
  std::vector<Slot> slots_;  // a power of two of them, at most half full; linear probing
  int32_t count_ = 0;
};

}  // namespace qianli::text
