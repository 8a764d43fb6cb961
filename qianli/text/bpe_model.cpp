#include "qianli/text/bpe_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>

#include "qianli/text/byte_tokens.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// Above this many symbols a heap beats scanning all pairs for every merge.
constexpr size_t kShortSymbols = 48;

struct ByteAlphabet {
  std::array<char32_t, 256> char_of;
  std::array<int16_t, 0x144> byte_of;
  ByteAlphabet() {
    byte_of.fill(-1);
    char32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
                             (byte >= 0xAE && byte <= 0xFF);
      char_of[byte] = printable ? byte : next++;
      byte_of[char_of[byte]] = static_cast<int16_t>(byte);
    }
  }
};
const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

char32_t byte_level_char(unsigned char byte) { return byte_alphabet().char_of[byte]; }
int byte_of_level_char(char32_t c) {
  const auto& table = byte_alphabet().byte_of;
  return c < table.size() ? table[c] : -1;
}
std::string to_byte_level(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) append_utf8(out, byte_level_char(static_cast<unsigned char>(byte)));
  return out;
}

void MergeTable::reserve(size_t count) {
  const size_t size = std::bit_ceil(std::max<size_t>(2, 2 * count));
  slots_.assign(size, Slot{});
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
}

void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  size_t i = place_of(key);
  while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
  slots_[i] = {key, merge};
}

BpeModel::BpeModel(const Vocabulary& vocabulary, MergeTable merges, BpeOptions options)
    : vocabulary_(vocabulary), merges_(std::move(merges)), options_(std::move(options)) {
  plain_names_ = options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
  byte_ids_ = byte_token_ids(vocabulary_);
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const std::string character(1, static_cast<char>(byte));
    if (options_.byte_level)
      byte_ids_[byte] = vocabulary_.find(to_byte_level(character)).value_or(-1);
    if (byte < 128) ascii_ids_[byte] = vocabulary_.find(character).value_or(-1);
  }
}

int32_t BpeModel::character_id(std::string_view character, bool first, bool last,
                               std::string& name) const {
  if (plain_names_) {
    if (character.size() == 1) return ascii_ids_[static_cast<unsigned char>(character[0])];
    return vocabulary_.find(character).value_or(-1);
  }
  name.clear();
  if (!first) name += options_.continuing_subword_prefix;
  name += character;
  if (last) name += options_.end_of_word_suffix;
  return vocabulary_.find(name).value_or(-1);
}

// Byte level with plain names: one table look-up a byte. A byte without a token is dropped, or
// becomes unk, as below.
void BpeModel::first_bytes(std::string_view piece, BpeScratch& scratch) const {
  scratch.ids.resize(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(piece[i])];
    if (id < 0) {
      // Rare: a vocabulary without the whole alphabet. The general way spells it out.
      const std::string spelled = to_byte_level(piece);
      return first_characters(spelled, scratch);
    }
    scratch.ids[i] = id;
  }
}

void BpeModel::first_characters(std::string_view piece, BpeScratch& scratch) const {
  auto& ids = scratch.ids;
  ids.clear();
  bool pending_unk = false;  // an unk that may grow when fused
  for (size_t at = 0; at < piece.size();) {
    const size_t size = decode_char(piece.data() + at).size;
    const auto character = piece.substr(at, size);
    const int32_t id = character_id(character, at == 0, at + size == piece.size(), scratch.name);
    at += size;
    if (id >= 0) {
      if (pending_unk) ids.push_back(*options_.unk_id);
      pending_unk = false;
      ids.push_back(id);
      continue;
    }
    const std::string_view spelled = plain_names_ ? character : std::string_view(scratch.name);
    const auto has_byte = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)] >= 0; };
    if (options_.byte_fallback && std::all_of(spelled.begin(), spelled.end(), has_byte)) {
      // A pending unk stays pending: it comes out behind these bytes, as in the reference library.
      for (const char c : spelled) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      continue;
    }
    if (!options_.unk_id) continue;
    if (pending_unk && !options_.fuse_unk) ids.push_back(*options_.unk_id);
    pending_unk = true;
  }
  if (pending_unk) ids.push_back(*options_.unk_id);
}

void BpeModel::first_symbols(std::string_view piece, BpeScratch& scratch) const {
  if (options_.byte_level && plain_names_) return first_bytes(piece, scratch);
  if (!options_.byte_level) return first_characters(piece, scratch);
  const std::string spelled = to_byte_level(piece);
  first_characters(spelled, scratch);
}

void BpeModel::merge_short(BpeScratch& scratch) const {
  auto& ids = scratch.ids;
  auto& merges = scratch.merges;
  size_t n = ids.size();
  merges.resize(n);
  for (size_t i = 0; i + 1 < n; ++i) merges[i] = merges_.find(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    uint32_t rank = merges[0].rank;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (merges[i].rank < rank) rank = merges[best = i].rank;
    }
    if (rank == MergeTable::kNone) break;
    ids[best] = merges[best].id;
    --n;
    std::copy(ids.begin() + best + 2, ids.begin() + n + 1, ids.begin() + best + 1);
    std::copy(merges.begin() + best + 2, merges.begin() + n + 1, merges.begin() + best + 1);
    if (best + 1 < n) merges[best] = merges_.find(ids[best], ids[best + 1]);
    if (best > 0) merges[best - 1] = merges_.find(ids[best - 1], ids[best]);
  }
  ids.resize(n);
}

void BpeModel::merge_long(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto n = static_cast<int32_t>(scratch.ids.size());
  symbols.resize(scratch.ids.size());
  heap.clear();
  const auto consider = [&](int32_t i) {
    auto& symbol = symbols[static_cast<size_t>(i)];
    symbol.merge = {};
    if (symbol.next < 0) return;
    symbol.merge = merges_.find(symbol.id, symbols[static_cast<size_t>(symbol.next)].id);
    if (symbol.merge.rank == MergeTable::kNone) return;
    if (!options_.unused.empty() && options_.unused[static_cast<size_t>(symbol.merge.id)]) {
      scratch.halves[symbol.merge.id] = {symbol.id, symbols[static_cast<size_t>(symbol.next)].id};
    }
    heap.push_back(static_cast<uint64_t>(symbol.merge.rank) << 32 | static_cast<uint32_t>(i));
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  for (int32_t i = 0; i < n; ++i) {
    symbols[static_cast<size_t>(i)] = {
        scratch.ids[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1, {}};
  }
  for (int32_t i = 0; i < n; ++i) consider(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto i = static_cast<int32_t>(heap.back() & 0xFFFFFFFFu);
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    heap.pop_back();
    auto& symbol = symbols[static_cast<size_t>(i)];
    if (symbol.id < 0 || symbol.merge.rank != rank) continue;  // swallowed or changed since
    auto& right = symbols[static_cast<size_t>(symbol.next)];
    symbol.id = symbol.merge.id;
    symbol.next = right.next;
    right.id = -1;
    if (symbol.next >= 0) symbols[static_cast<size_t>(symbol.next)].previous = i;
    // In this order: of unused tokens the halves seen last count.
    if (symbol.previous >= 0) consider(symbol.previous);
    consider(i);
  }
  scratch.ids.clear();
  for (int32_t i = n > 0 ? 0 : -1; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    scratch.ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

void BpeModel::append_used(int32_t id, const BpeScratch& scratch, std::vector<int32_t>& ids) const {
  const auto halves = scratch.halves.find(id);
  if (halves == scratch.halves.end()) return ids.push_back(id);
  append_used(halves->second.first, scratch, ids);
  append_used(halves->second.second, scratch, ids);
}

std::string BpeModel::kind() const {
  if (options_.byte_level) return "byte-level BPE";
  return options_.byte_fallback ? "BPE with byte fallback" : "BPE";
}

void BpeModel::encode(std::string_view piece, Scratch& buffers, std::vector<int32_t>& ids) const {
  auto& scratch = static_cast<BpeScratch&>(buffers);
  if (options_.ignore_merges) {
    const auto whole =
        options_.byte_level ? vocabulary_.find(to_byte_level(piece)) : vocabulary_.find(piece);
    if (whole) return ids.push_back(*whole);
  }
  first_symbols(piece, scratch);
  if (!options_.unused.empty()) {
    scratch.halves.clear();
    merge_long(scratch);
    for (const int32_t id : scratch.ids) append_used(id, scratch, ids);
    return;
  }
  if (scratch.ids.size() > 1) {
    if (scratch.ids.size() <= kShortSymbols) {
      merge_short(scratch);
    } else {
      merge_long(scratch);
    }
  }
  ids.insert(ids.end(), scratch.ids.begin(), scratch.ids.end());
}

}  // namespace qianli::text
