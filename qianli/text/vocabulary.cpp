#include "qianli/text/vocabulary.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>

namespace qianli::text {
namespace {

uint32_t hash_of(std::string_view token) {
  return static_cast<uint32_t>(XXH3_64bits(token.data(), token.size()));
}

}  // namespace

void Vocabulary::reserve(size_t count, size_t bytes, int32_t largest_id) {
  slots_.assign(std::bit_ceil(std::max<size_t>(16, 2 * count)), Slot{});
  arena_.reserve(bytes);
  places_.assign(static_cast<size_t>(largest_id) + 1, Place{});
}

size_t Vocabulary::slot_of(std::string_view wanted, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.id < 0 || (slot.hash == hash && token(slot.id) == wanted)) return i;
  }
}

Vocabulary::Added Vocabulary::add(std::string_view token, int32_t id) {
  if (has(id)) return Added::kIdTwice;
  const uint32_t hash = hash_of(token);
  Slot& slot = slots_[slot_of(token, hash)];
  if (slot.id >= 0) return Added::kTokenTwice;
  slot = {hash, id};
  places_[static_cast<size_t>(id)] = {static_cast<uint32_t>(arena_.size()),
                                      static_cast<uint32_t>(token.size())};
  arena_ += token;
  ++count_;
  return Added::kYes;
}

std::optional<int32_t> Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return std::nullopt;
  const Slot& slot = slots_[slot_of(token, hash_of(token))];
  return slot.id < 0 ? std::nullopt : std::optional(slot.id);
}

}  // namespace qianli::text
