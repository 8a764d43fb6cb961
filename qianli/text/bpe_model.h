// Byte-pair encoding of one piece of text: the merge of lowest rank first, the leftmost among
// equals.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qianli/text/model.h"
#include "qianli/text/vocabulary.h"

namespace qianli::text {

// The pairs that merge: (left id, right id) -> rank and merged id. Open addressing; a pair given
// twice keeps the later rank, as in the reference library.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNone;
    int32_t id = -1;
  };
  static constexpr uint32_t kNone = ~0u;

  void reserve(size_t count);
  void set(int32_t left, int32_t right, Merge merge);
  // rank is kNone where the pair does not merge.
  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = place_of(key);; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.key == key) return slot.merge;
      if (slot.key == kEmpty) return {};
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~0ull;
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t place_of(uint64_t key) const {
    return static_cast<size_t>((key * 0x9E3779B97F4A7C15ull) >> shift_);
  }
  std::vector<Slot> slots_{2};
  size_t mask_ = 1;
  int shift_ = 63;
};

// Buffers of one encoding thread.
struct BpeScratch : Model::Scratch {
  struct Symbol {
    int32_t id;
    int32_t previous, next;   // indices, -1 at the ends
    MergeTable::Merge merge;  // with the next symbol
  };
  std::vector<int32_t> ids;
  std::vector<MergeTable::Merge> merges;
  std::vector<Symbol> symbols;
  std::vector<uint64_t> heap;
  std::string name;
  std::unordered_map<int32_t, std::pair<int32_t, int32_t>> halves;  // of unused tokens
};

struct BpeOptions {
  bool byte_level = false;  // pieces are bytes, tokens are spelled in the byte-level alphabet
  bool byte_fallback = false;
  bool fuse_unk = false;
  bool ignore_merges = false;
  std::optional<int32_t> unk_id;
  std::string continuing_subword_prefix, end_of_word_suffix;
  // By id: tokens that merges make but that do not come out; they fall apart into what made them.
  // Empty: none.
  std::vector<bool> unused = {};
};

class BpeModel : public Model {
 public:
  // `vocabulary` outlives the model.
  BpeModel(const Vocabulary& vocabulary, MergeTable merges, BpeOptions options);

  std::unique_ptr<Scratch> make_scratch() const override { return std::make_unique<BpeScratch>(); }
  void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const override;
  std::optional<int32_t> unk_id() const override { return options_.unk_id; }
  std::string kind() const override;

 private:
  void first_symbols(std::string_view piece, BpeScratch& scratch) const;
  void first_bytes(std::string_view piece, BpeScratch& scratch) const;
  void first_characters(std::string_view piece, BpeScratch& scratch) const;
  int32_t character_id(std::string_view character, bool first, bool last, std::string& name) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;
  void append_used(int32_t id, const BpeScratch& scratch, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary_;
  MergeTable merges_;
  BpeOptions options_;
  bool plain_names_;  // neither prefix nor suffix
  // Byte level: the byte's token; byte fallback: that of "<0xHH>"; or -1.
  std::array<int32_t, 256> byte_ids_;
  int32_t ascii_ids_[128];  // token of a one-byte character, or -1
};

// The byte-level alphabet: a printable character for every byte (GPT-2's bytes_to_unicode).
char32_t byte_level_char(unsigned char byte);
// The byte of a character of the alphabet, or -1.
int byte_of_level_char(char32_t c);
std::string to_byte_level(std::string_view bytes);

}  // namespace qianli::text
