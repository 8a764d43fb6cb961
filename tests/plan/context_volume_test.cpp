// What adaptive context parallelism sends for a real corpus, packed, beside a ring.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "qianli/base/json.h"
#include "qianli/data/token_order.h"
#include "qianli/plan/task_schedule.h"
#include "qianli/text/tokenizer.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

// Qwen3-8B's attention: query and key heads of 128; bfloat16, gradients of keys in float32.
constexpr double kHeads = 32, kKeyHeads = 8, kDim = 128, kHalf = 2, kFull = 4;
constexpr double kKeys = 2 * kKeyHeads * kDim, kQueries = kHeads * kDim;  // elements of a token

// Documents' lengths, each with its end.
std::vector<int64_t> document_lengths(const fs::path& corpus, const text::Tokenizer& tokenizer) {
  const std::string text = read_file(corpus, FileRole::kData);
  std::vector<int64_t> lengths;
  for (size_t line = 0; line < text.size();) {
    const size_t end = std::min(text.find('\n', line), text.size());
    const Json record = Json::parse(text.substr(line, end - line));
    const auto ids = tokenizer.encode(record.at("text").get<std::string>(), true);
    lengths.push_back(static_cast<int64_t>(ids.size()) + 1);
    line = end + 1;
  }
  return lengths;
}

// The documents one behind the other, cut into samples.
std::vector<data::ContextMask> packed(const std::vector<int64_t>& lengths, int64_t sample,
                                      int64_t window) {
  std::vector<data::ContextMask> masks = {{{0}, true, window}};
  for (int64_t left : lengths) {
    while (left > 0) {
      if (masks.back().tokens() == sample) masks.push_back({{0}, true, window});
      const int64_t count = std::min(left, sample - masks.back().tokens());
      masks.back().segment_starts.push_back(masks.back().tokens() + count);
      left -= count;
    }
  }
  masks.pop_back();  // not full
  return masks;
}

// Bytes of a layer, forward and backward, over all ranks.
double adaptive_bytes(const data::ContextMask& mask, int64_t ranks) {
  const auto parts = data::adaptive_parts(mask, ranks);
  const auto schedule = plan::task_schedule(data::open_cells(parts, true, mask.window),
                                            {.keys = static_cast<int64_t>(kKeys),
                                             .queries = static_cast<int64_t>(kQueries),
                                             .result = static_cast<int64_t>(kQueries)});
  const double rows = static_cast<double>(mask.tokens()) / static_cast<double>(ranks);
  double bytes = 0;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    for (const auto& round : plan::rounds_of(schedule, rank)) {
      for (const auto& message : round.goes) {
        const bool keys = message.cargo == plan::PlaceRound::Cargo::kKeys;
        const double statistics = kHeads * kFull;
        bytes += rows * (keys ? kKeys * (kHalf + kHalf + kFull)
                              : kQueries * (2 * kHalf + 3 * kHalf + kFull) + 2 * statistics);
      }
    }
  }
  return bytes;
}

double ring_bytes(int64_t tokens, int64_t ranks) {
  const auto places = static_cast<double>(ranks);
  return static_cast<double>(tokens) * kKeys * ((places - 1) * (kHalf + kHalf) + places * kFull);
}

TEST(ContextVolume, adaptive_sends_less_than_a_ring_for_a_packed_corpus) {
  QIANLI_REQUIRE_DATA(folder, "tokenizers/qwen3");
  QIANLI_REQUIRE_DATA(corpus, "pretrain/c4_demo.jsonl");
  const auto lengths = document_lengths(corpus, *text::Tokenizer::load(folder));
  for (const int64_t sample : {4096, 16384}) {
    for (const int64_t ranks : {4, 8}) {
      for (const int64_t window : {0, 512}) {
        double adaptive = 0, ring = 0;
        for (const auto& mask : packed(lengths, sample, window)) {
          adaptive += adaptive_bytes(mask, ranks);
          ring += ring_bytes(sample, ranks);
        }
        fmt::print("{} tokens, {} ranks, window {}: {:.1f} MiB adaptive, {:.1f} MiB ring: {:.3f}\n",
                   sample, ranks, window, adaptive / 1048576, ring / 1048576, adaptive / ring);
        EXPECT_LT(adaptive / ring, ranks == 4 ? 0.4 : 0.3);
      }
    }
  }
}

}  // namespace
}  // namespace qianli::testing
