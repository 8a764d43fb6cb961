// Philox4x32-10 (Salmon et al., SC 2011) in every lane, and the bits of dropout from it
// (kernels.h). Include per target.
#if defined(QIANLI_OPS_CPU_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QIANLI_OPS_CPU_PHILOX_INL_H_
#undef QIANLI_OPS_CPU_PHILOX_INL_H_
#else
#define QIANLI_OPS_CPU_PHILOX_INL_H_
#endif

#include "qianli/ops/cpu/simd-inl.h"
#include "qianli/ops/kernels.h"

HWY_BEFORE_NAMESPACE();
namespace qianli::ops::cpu {
namespace HWY_NAMESPACE {

using Words = hn::Vec<U>;
HWY_INLINE Words words(uint32_t value) { return hn::Set(U(), value); }

// The upper and lower halves of products with a factor that is the same in all lanes.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE void multiply(Words a, Words factor, Words& high, Words& low) {
  const uint64_t product = uint64_t{hn::GetLane(a)} * hn::GetLane(factor);
  high = words(static_cast<uint32_t>(product >> 32));
  low = words(static_cast<uint32_t>(product));
}
#else
HWY_INLINE void multiply(Words a, Words factor, Words& high, Words& low) {
  const U u;
  const hn::Repartition<uint64_t, U> wide;
  const auto even = hn::MulEven(a, factor);
  const auto odd = hn::MulEven(hn::BitCast(u, hn::ShiftRight<32>(hn::BitCast(wide, a))), factor);
  high = hn::OddEven(hn::BitCast(u, odd), hn::BitCast(u, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(u, hn::ShiftLeft<32>(odd)), hn::BitCast(u, even));
}
#endif

// counter: replaced by the block.
HWY_INLINE void philox(uint64_t key, Words (&counter)[4]) {
  auto key_low = static_cast<uint32_t>(key), key_high = static_cast<uint32_t>(key >> 32);
  const Words first = words(0xD2511F53u), second = words(0xCD9E8D57u);
  for (int round = 0; round < 10; ++round) {
    Words high0, low0, high1, low1;
    multiply(counter[0], first, high0, low0);
    multiply(counter[2], second, high1, low1);
    counter[0] = hn::Xor(hn::Xor(high1, counter[1]), words(key_low));
    counter[1] = low1;
    counter[2] = hn::Xor(hn::Xor(high0, counter[3]), words(key_high));
    counter[3] = low0;
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
}

// A byte in each lane: bit i is set where the i-th neighbour of the lane's group stays.
HWY_INLINE Words kept_of_group(const Dropout& dropout, Words (&counter)[4]) {
  philox(dropout.key, counter);
  const Words threshold = words(dropout.threshold), low_half = words(0xffff);
  Words kept = words(0);
  QIANLI_UNROLL for (int i = 0; i < 4; ++i) {
    const Words low = hn::And(counter[i], low_half), high = hn::ShiftRight<16>(counter[i]);
    // Both are below 2^16: the sign of the difference tells.
    const Words low_dropped = hn::ShiftRight<31>(hn::Sub(low, threshold));
    const Words high_dropped = hn::ShiftRight<31>(hn::Sub(high, threshold));
    const Words pair = hn::Or(low_dropped, hn::Add(high_dropped, high_dropped));
    kept = hn::Or(kept, hn::ShiftLeftSame(pair, 2 * i));
  }
  return hn::Xor(kept, words(0xff));
}

// `value` where the bits of its lanes, from bit `first` of `bits` on, are set; else 0.
HWY_INLINE V kept_values(V value, uint64_t bits, int64_t first) {
  static constexpr uint32_t kLaneBits[] = {1,       1 << 1,  1 << 2,  1 << 3, 1 << 4,  1 << 5,
                                           1 << 6,  1 << 7,  1 << 8,  1 << 9, 1 << 10, 1 << 11,
                                           1 << 12, 1 << 13, 1 << 14, 1 << 15};
  static_assert(hn::MaxLanes(U()) <= 16);
  const Words own = words(static_cast<uint32_t>(bits >> first));
  return hn::IfThenElseZero(hn::RebindMask(F(), hn::TestBit(own, hn::LoadU(U(), kLaneBits))),
                            value);
}

}  // namespace HWY_NAMESPACE
}  // namespace qianli::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
