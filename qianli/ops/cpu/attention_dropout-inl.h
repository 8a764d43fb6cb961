// The dropout mask of a tile of attention. Include per target.
#if defined(QIANLI_OPS_CPU_ATTENTION_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_ATTENTION_DROPOUT_INL_H_
#undef QIANLI_OPS_CPU_ATTENTION_DROPOUT_INL_H_
#else
#define QIANLI_OPS_CPU_ATTENTION_DROPOUT_INL_H_
#endif

#include "qianli/ops/cpu/attention.h"
#include "qianli/ops/cpu/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

// A lane is a column; a block of Philox gives it eight keys.
inline void find_kept(const AttentionForward& a, const DropoutTile& tile, KeptKeys& kept) {
  uint32_t low[kTileQueries] = {}, high[kTileQueries] = {}, heads[kTileQueries] = {};
  const int64_t columns = tile.queries * tile.heads;
  for (int64_t c = 0; c < columns; ++c) {
    const int64_t position = tile.sequence.offset + tile.query + c / tile.heads;
    const auto origin = static_cast<uint64_t>(tile.sequence.origin + position);
    low[c] = static_cast<uint32_t>(origin);
    high[c] = static_cast<uint32_t>(origin >> 32);
    heads[c] = static_cast<uint32_t>(a.first_head + tile.head + c % tile.heads);
  }
  const auto position = static_cast<uint32_t>(tile.sequence.origin + tile.key);
  const int shift = static_cast<int>(position % kDropoutGroup);  // the first key in its group
  const int64_t groups = divide_up(shift + tile.keys, kDropoutGroup);
  for (int64_t c = 0; c < columns; c += lanes()) {
    Words bits[3] = {words(0), words(0), words(0)};
    for (int64_t g = 0; g < groups; ++g) {
      Words counter[4] = {
          hn::LoadU(U(), low + c), hn::LoadU(U(), high + c),
          words(position / static_cast<uint32_t>(kDropoutGroup) + static_cast<uint32_t>(g)),
          hn::LoadU(U(), heads + c)};
      const Words byte = kept_of_group(a.dropout, counter);
      bits[g / 4] = hn::Or(bits[g / 4], hn::ShiftLeftSame(byte, 8 * static_cast<int>(g % 4)));
    }
    if (shift > 0) {
      for (int i = 0; i < 2; ++i) {
        bits[i] =
            hn::Or(hn::ShiftRightSame(bits[i], shift), hn::ShiftLeftSame(bits[i + 1], 32 - shift));
      }
    }
    hn::StoreU(bits[0], U(), kept.low + c);
    hn::StoreU(bits[1], U(), kept.high + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
