#include "qianli/data/batch_source.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::data {
namespace {

using Values = std::vector<int64_t>;

// Rows given one by one; reads of `bad` fail.
class FixedSamples : public SampleSet {
 public:
  explicit FixedSamples(std::vector<Values> rows, int64_t bad = -1)
      : rows_(std::move(rows)), bad_(bad) {}
  int64_t size() const override { return static_cast<int64_t>(rows_.size()); }
  int64_t sample_length() const override { return static_cast<int64_t>(rows_[0].size()); }
  void read(int64_t index, std::span<int64_t> out) const override {
    if (index == bad_) throw DataError("data", "damaged");
    std::copy(rows_[static_cast<size_t>(index)].begin(), rows_[static_cast<size_t>(index)].end(),
              out.begin());
  }
  std::string fingerprint() const override { return "fixed"; }
  std::string origin(int64_t) const override { return "rows of a test"; }

 private:
  std::vector<Values> rows_;
  int64_t bad_;
};

// Sample i is [10 i, 10 i + 1, 10 i + 2].
std::shared_ptr<const SampleSet> counting(int64_t count, int64_t bad = -1) {
  std::vector<Values> rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back({10 * i, 10 * i + 1, 10 * i + 2});
  return std::make_shared<FixedSamples>(std::move(rows), bad);
}

constexpr int64_t kEod = 99;
const FixedSamples kTwoEnds({{5, 6, kEod, 7, 8, 9, kEod, 3, 4}});

TEST(Batch, plain_masks_and_positions) {
  const Batch batch = make_batch(kTwoEnds, Values{0}, {.eod = kEod});
  EXPECT_EQ(batch.sequences, 1);
  EXPECT_EQ(batch.sequence_length, 8);
  EXPECT_EQ(batch.tokens, (Values{5, 6, kEod, 7, 8, 9, kEod, 3}));
  EXPECT_EQ(batch.labels, (Values{6, kEod, 7, 8, 9, kEod, 3, 4}));
  EXPECT_EQ(batch.loss_mask, std::vector<float>(8, 1.0f));
  EXPECT_EQ(batch.positions, (Values{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_TRUE(batch.segment_ends.empty());
  EXPECT_EQ(batch.sample_indices, Values{0});
}

TEST(Batch, documents_are_separated_on_request) {
  const Batch batch = make_batch(kTwoEnds, Values{0, 0},
                                 {.eod = kEod,
                                  .eod_mask_loss = true,
                                  .reset_position_ids = true,
                                  .reset_attention_mask = true});
  EXPECT_EQ(Values(batch.positions.begin(), batch.positions.begin() + 8),
            (Values{0, 1, 2, 0, 1, 2, 3, 0}));
  EXPECT_EQ(batch.segment_ends, (Values{3, 7, 8, 11, 15, 16}));
  EXPECT_EQ(std::vector<float>(batch.loss_mask.begin(), batch.loss_mask.begin() + 8),
            (std::vector<float>{1, 1, 0, 1, 1, 1, 0, 1}));
  const Batch second = slice_rows(batch, 1, 1);
  EXPECT_EQ(second.segment_ends, (Values{3, 7, 8}));
  EXPECT_EQ(second.tokens, make_batch(kTwoEnds, Values{0}, {}).tokens);
}

TEST(Batch, an_end_of_document_in_last_place_ends_its_segment_once) {
  const FixedSamples samples({{1, kEod, 5}});
  const Batch batch = make_batch(samples, Values{0}, {.eod = kEod, .reset_attention_mask = true});
  EXPECT_EQ(batch.segment_ends, Values{2});
}

TEST(Batch, padding_is_token_zero_without_loss) {
  const FixedSamples samples({{4, 7, kPadding, kPadding}});
  const Batch batch = make_batch(samples, Values{0}, {.pad = 7});
  EXPECT_EQ(batch.tokens, (Values{4, 0, 0}));
  EXPECT_EQ(batch.labels, (Values{0, 0, 0}));
  EXPECT_EQ(batch.loss_mask, (std::vector<float>{0, 0, 0}));
}

TEST(Batch, a_pad_id_equal_to_the_end_of_document_keeps_its_loss) {
  const Batch batch = make_batch(kTwoEnds, Values{0}, {.eod = kEod, .pad = kEod});
  EXPECT_EQ(batch.tokens[2], kEod);
  EXPECT_EQ(batch.labels[1], kEod);
  EXPECT_EQ(batch.loss_mask, std::vector<float>(8, 1.0f));
}

TEST(Batch, tokens_beyond_the_vocabulary_are_an_error_naming_the_sample) {
  try {
    make_batch(kTwoEnds, Values{0}, {.vocab_size = 50});
    FAIL() << "token 99 passed a vocabulary of 50";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("got 99 in sample 0 of rows of a test"),
              std::string::npos)
        << error.what();
  }
}

Values samples_in(const std::vector<Batch>& batches) {
  Values indices;
  for (const Batch& batch : batches) {
    indices.insert(indices.end(), batch.sample_indices.begin(), batch.sample_indices.end());
  }
  return indices;
}

TEST(BatchSource, ranks_read_contiguous_pieces_of_each_block) {
  const auto samples = counting(16);
  const SampleBatches first(samples, {8, 2, 0, 2}, {}), second(samples, {8, 2, 1, 2}, {});
  EXPECT_EQ(first.num_steps(), 2);
  EXPECT_EQ(first.microbatches_per_step(), 2);
  EXPECT_EQ(samples_in(first.microbatches(1)), (Values{8, 9, 12, 13}));
  EXPECT_EQ(samples_in(second.microbatches(1)), (Values{10, 11, 14, 15}));
}

TEST(BatchSource, every_layout_reads_the_same_samples_per_step) {
  const auto samples = counting(96);
  for (const int64_t ranks : {1, 2, 3, 4, 6}) {
    for (const int64_t micro : {1, 2}) {
      for (int64_t step = 0; step < 4; ++step) {
        Values read;
        for (int64_t rank = 0; rank < ranks; ++rank) {
          const auto part =
              samples_in(SampleBatches(samples, {24, micro, rank, ranks}, {}).microbatches(step));
          read.insert(read.end(), part.begin(), part.end());
        }
        std::sort(read.begin(), read.end());
        EXPECT_EQ(read,
                  SampleBatches(samples, {24, 1, 0, 1}, {}).global_batch(step).sample_indices);
      }
    }
  }
}

TEST(BatchSource, uneven_batches_and_missing_steps_are_refused) {
  EXPECT_THROW(SampleBatches(counting(16), {8, 3, 0, 1}, {}), ConfigError);
  const SampleBatches source(counting(17), {8, 2, 0, 1}, {});
  EXPECT_EQ(source.num_steps(), 2);
  EXPECT_THROW(source.global_batch(2), DataError);
  EXPECT_THROW(source.microbatches(-1), DataError);
}

TEST(BatchPrefetcher, gives_the_same_batches_in_the_same_order) {
  const auto source =
      std::make_shared<const SampleBatches>(counting(64), BatchLayout{4, 2, 0, 1}, MaskOptions{});
  for (const int64_t depth : {1, 2, 5}) {
    BatchPrefetcher ahead(source, 3, 16, depth);
    for (int64_t step = 3; step < 16; ++step) {
      const auto expected = source->microbatches(step);
      const auto read = ahead.next();
      ASSERT_EQ(read.size(), expected.size());
      for (size_t k = 0; k < read.size(); ++k) EXPECT_EQ(read[k].tokens, expected[k].tokens);
    }
    EXPECT_THROW(ahead.next(), std::logic_error);
  }
}

TEST(BatchPrefetcher, a_damaged_sample_is_reported_when_its_step_comes) {
  const auto source = std::make_shared<const SampleBatches>(counting(64, 17),
                                                            BatchLayout{4, 4, 0, 1}, MaskOptions{});
  BatchPrefetcher ahead(source, 0, 16, 8);
  for (int64_t step = 0; step < 4; ++step) EXPECT_EQ(ahead.next()[0].sample_indices[0], 4 * step);
  EXPECT_THROW(ahead.next(), DataError);
}

TEST(BatchPrefetcher, may_be_left_before_the_end) {
  const auto source =
      std::make_shared<const SampleBatches>(counting(64), BatchLayout{4, 4, 0, 1}, MaskOptions{});
  BatchPrefetcher ahead(source, 0, 16, 2);
  EXPECT_EQ(ahead.next()[0].sample_indices[0], 0);
}

}  // namespace
}  // namespace qianli::data
