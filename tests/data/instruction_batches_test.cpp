#include "qianli/data/instruction_batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "qianli/base/error.h"
#include "tests/data/instruction_samples_file.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing_support::open_samples;
using testing_support::StoredSample;
using testing_support::write_samples;
using Values = std::vector<int64_t>;
constexpr int32_t x = -100;

class Batches : public ::testing::Test {
 protected:
  std::shared_ptr<const InstructionDataset> store(const std::vector<StoredSample>& samples) {
    write_samples(folder_ / "data", samples);
    return open_samples(folder_ / "data");
  }
  // Sample i has 3 + i % 5 tokens, 100 i + place, of which the first is asked.
  std::shared_ptr<const InstructionDataset> counting(int32_t count) {
    std::vector<StoredSample> samples;
    for (int32_t i = 0; i < count; ++i) {
      auto& sample = samples.emplace_back();
      for (int32_t place = 0; place < 3 + i % 5; ++place) {
        sample.ids.push_back(100 * i + place);
        sample.labels.push_back(place == 0 ? x : 100 * i + place);
      }
    }
    return store(samples);
  }
  static InstructionBatchOptions in_order(int64_t epochs = 1) {
    return {.rows = {.capacity = 100, .shuffle = false}, .wanted = {.epochs = epochs}};
  }

  testing::TemporaryFolder folder_;
};

TEST_F(Batches, samples_lie_one_behind_the_other_with_labels_shifted) {
  const auto samples = store({{{5, 6, 7, 8}, {x, x, 7, 8}}, {{9, 10, 11}, {x, 10, 11}}});
  const InstructionBatches batches(samples, {.global_batch_size = 2, .micro_batch_size = 2},
                                   in_order());
  ASSERT_EQ(batches.num_steps(), 1);
  const Batch batch = batches.microbatches(0).at(0);
  EXPECT_EQ(batch.sequences, 1);
  EXPECT_EQ(batch.sequence_length, 5);
  EXPECT_EQ(batch.tokens, (Values{5, 6, 7, 9, 10}));
  EXPECT_EQ(batch.labels, (Values{6, 7, 8, 10, 11}));
  EXPECT_EQ(batch.loss_mask, (std::vector<float>{0, 1, 1, 1, 1}));
  EXPECT_EQ(batch.positions, (Values{0, 1, 2, 0, 1}));
  EXPECT_EQ(batch.segment_ends, (Values{3, 5}));
  EXPECT_EQ(batch.sample_indices, (Values{0, 1}));
  EXPECT_EQ(batch.sample_starts, (Values{0, 3}));
  EXPECT_EQ(sample_lengths(batch), (Values{3, 3, 3, 2, 2}));
  constexpr int64_t kSecond = int64_t{1} << 32;
  EXPECT_EQ(token_origins(batch), (Values{0, 1, 2, kSecond, kSecond + 1}));
  EXPECT_EQ(segment_origins(batch), (Values{0, kSecond}));
}

TEST_F(Batches, what_no_label_follows_is_left_out) {
  const auto samples =
      store({{{5, 6, 7, 8, 8, 8}, {x, x, 7, x, x, x}}, {{9, 9}, {x, x}}, {{4}, {4}}});
  const InstructionBatches batches(samples, {.global_batch_size = 3, .micro_batch_size = 3},
                                   in_order());
  const Batch batch = batches.microbatches(0).at(0);
  // A sample that teaches nothing leaves one token, so that every rank has something to do.
  EXPECT_EQ(batch.tokens, (Values{5, 6, 0, 0}));
  EXPECT_EQ(batch.loss_mask, (std::vector<float>{0, 1, 0, 0}));
  EXPECT_EQ(batch.segment_ends, (Values{2, 3, 4}));
}

TEST_F(Batches, plain_packs_are_taken_apart_at_ends_of_text) {
  // Two samples of 3 and 2 tokens, and padding.
  const auto samples = store({{{5, 6, 2, 7, 2, 1, 1}, {x, 6, 2, x, 2, x, x}}});
  InstructionBatchOptions options = in_order();
  options.end_of_sample = 2;
  const Batch batch = InstructionBatches(samples, {}, options).microbatches(0).at(0);
  EXPECT_EQ(batch.tokens, (Values{5, 6, 7}));
  EXPECT_EQ(batch.labels, (Values{6, 2, 2}));
  EXPECT_EQ(batch.positions, (Values{0, 1, 0}));
  EXPECT_EQ(batch.segment_ends, (Values{2, 3}));
  EXPECT_EQ(batch.sample_starts, Values{0});
}

TEST_F(Batches, every_layout_learns_the_same_in_a_step) {
  const auto samples = counting(23);
  const auto labels = [](const std::vector<Batch>& batches) {
    Values learnt;
    for (const Batch& batch : batches) {
      for (size_t i = 0; i < batch.labels.size(); ++i)
        if (batch.loss_mask[i] > 0) learnt.push_back(batch.labels[i]);
    }
    return learnt;
  };
  for (const RowPacking packing : {RowPacking::kNone, RowPacking::kGreedy, RowPacking::kBestFit}) {
    InstructionBatchOptions options{.rows = {.packing = packing, .capacity = 9, .seed = 3},
                                    .wanted = {.epochs = 2}};
    const InstructionBatches serial(samples, {.global_batch_size = 8}, options);
    for (const int64_t budget : {0, 12}) {
      for (const int64_t ranks : {1, 2, 4}) {
        options.micro_batch_tokens = budget;
        for (int64_t step = 0; step < serial.num_steps(); ++step) {
          Values seen;
          std::vector<size_t> microbatches;
          for (int64_t rank = 0; rank < ranks; ++rank) {
            const InstructionBatches part(samples, {8, budget > 0 ? 1 : 2, rank, ranks}, options);
            EXPECT_EQ(part.fingerprint(), serial.fingerprint());
            ASSERT_EQ(part.num_steps(), serial.num_steps());
            const auto own = part.microbatches(step);
            microbatches.push_back(own.size());
            const Values learnt = labels(own);
            seen.insert(seen.end(), learnt.begin(), learnt.end());
          }
          EXPECT_EQ(std::ranges::count(microbatches, microbatches[0]), ranks);
          Values expected = labels(serial.microbatches(step));
          std::ranges::sort(seen);
          std::ranges::sort(expected);
          EXPECT_EQ(seen, expected);
        }
      }
    }
  }
}

TEST_F(Batches, a_packed_row_is_its_samples_side_by_side) {
  const auto samples = counting(6);  // of 2, 3, 4, 5, 6 and 2 inputs
  InstructionBatchOptions options = in_order();
  options.rows.packing = RowPacking::kGreedy;
  options.rows.capacity = 14;
  const InstructionBatches packed(samples, {}, options),
      single(samples, {.global_batch_size = 4, .micro_batch_size = 4}, in_order());
  const Batch row = packed.microbatches(0).at(0), four = single.microbatches(0).at(0);
  EXPECT_EQ(row.tokens, four.tokens);
  EXPECT_EQ(row.positions, four.positions);
  EXPECT_EQ(row.segment_ends, (Values{2, 5, 9, 14}));
  EXPECT_EQ(row.segment_ends, four.segment_ends);
  EXPECT_EQ(row.sample_starts, four.sample_starts);
}

TEST_F(Batches, the_last_step_has_what_is_left) {
  const auto samples = counting(6);
  const InstructionBatches batches(samples, {4, 1, 1, 2}, in_order());
  EXPECT_EQ(batches.num_steps(), 2);
  EXPECT_EQ(batches.epochs_after(1), 4.0 / 6.0);
  EXPECT_EQ(batches.epochs_after(2), 1.0);
  const auto last = batches.microbatches(1);
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0].tokens.front(), 500);
  EXPECT_EQ(last[1].loss_mask, std::vector<float>{0});  // as many microbatches on every rank
  EXPECT_THROW(batches.microbatches(2), DataError);
}

TEST_F(Batches, every_rank_gets_a_token) {
  const auto samples = store({{{5, 6}, {x, 6}}});
  BatchLayout layout{.context = {.size = 4}, .context_rank = 3, .least_tokens = 4};
  const Batch batch = InstructionBatches(samples, layout, in_order()).microbatches(0).at(0);
  EXPECT_EQ(batch.tokens.size(), 1u);
  EXPECT_EQ(batch.counted, (std::vector<double>{1}));
}

TEST_F(Batches, what_does_not_fit_is_left_out_or_refused) {
  const auto samples = store({{{5, 6, 7, 8, 9}, {x, 6, 7, 8, 9}}, {{5, 6}, {x, 6}}});
  InstructionBatchOptions options = in_order();
  options.rows.capacity = 3;
  const InstructionBatches batches(samples, {}, options);
  EXPECT_EQ(batches.summary().too_long, 1);
  EXPECT_EQ(batches.summary().samples, 1);
  options.rows.capacity = 0;
  EXPECT_THROW(InstructionBatches(samples, {}, options), DataError);
  InstructionBatchOptions small = in_order();
  small.vocab_size = 6;
  EXPECT_THROW(InstructionBatches(samples, {}, small).microbatches(0), DataError);
  EXPECT_THROW(InstructionBatches(samples, {.global_batch_size = 3, .micro_batch_size = 2}, small),
               ConfigError);
}

TEST_F(Batches, the_fingerprint_tells_data_and_order_apart) {
  const auto samples = counting(12);
  const auto of = [&](const InstructionBatchOptions& options, int64_t batch = 4) {
    return InstructionBatches(samples, {.global_batch_size = batch}, options).fingerprint();
  };
  const InstructionBatchOptions usual = in_order();
  EXPECT_EQ(of(usual), of(in_order(3)));  // a longer run goes on
  EXPECT_TRUE(same_data(of(usual), of(usual, 2)));
  EXPECT_NE(of(usual), of(usual, 2));
  InstructionBatchOptions other = usual;
  other.rows.capacity = 50;
  EXPECT_FALSE(same_data(of(usual), of(other)));
}

}  // namespace
}  // namespace qianli::data
