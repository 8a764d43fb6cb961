#include "qianli/data/inspect.h"

#include <gtest/gtest.h>

#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;

Batch sample() {
  Batch batch;
  batch.sequences = 1;
  batch.sequence_length = 5;
  batch.tokens = {5, 6, 9, 7, 8};
  batch.labels = {6, 9, 7, 8, 3};
  batch.loss_mask = {1, 1, 0, 1, 1};
  batch.positions = {0, 1, 2, 0, 1};
  batch.segment_ends = {3, 5};
  batch.sample_indices = {4};
  return batch;
}

TEST(Inspect, counts_and_bins) {
  TemporaryFolder folder;
  formats::IndexedDatasetWriter writer(folder / "c");
  for (const size_t length : {3, 4, 5, 7, 20}) {
    writer.add_item(std::vector<int32_t>(length, 1));
    writer.end_document();
  }
  writer.commit();
  const auto summary = summarise(formats::IndexedDataset::open(folder / "c"));
  EXPECT_EQ(summary.documents, 5);
  EXPECT_EQ(summary.tokens, 39);
  EXPECT_EQ(summary.shortest, 3);
  EXPECT_EQ(summary.longest, 20);
  EXPECT_EQ(summary.dtype, "int32");
  ASSERT_EQ(summary.lengths.size(), 4u);  // 2-3, 4-7, 8-15, 16-31
  EXPECT_EQ(summary.lengths[0].low, 2);
  EXPECT_EQ(summary.lengths[1].sequences, 3);
  EXPECT_EQ(summary.lengths[2].sequences, 0);
  EXPECT_EQ(summary.lengths[3].high, 32);
}

TEST(Inspect, shows_masks_and_boundaries) {
  EXPECT_EQ(sample_to_text(sample(), nullptr, std::nullopt, false), "5 6 [9 ]│7 8 │");
  EXPECT_EQ(sample_to_text(sample(), nullptr, std::nullopt, true), "5 6 \033[2m9 \033[0m│7 8 │");
  Batch unsegmented = sample();
  unsegmented.segment_ends.clear();
  EXPECT_EQ(sample_to_text(unsegmented, nullptr, 9, false), "5 6 [9 ]│7 8 ");
}

TEST(Inspect, json_carries_every_column) {
  const OrderedJson json = sample_to_json(sample(), nullptr);
  EXPECT_EQ(
      json.dump(),
      R"({"sample":4,"tokens":[5,6,9,7,8],"labels":[6,9,7,8,3],"loss_mask":[1.0,1.0,0.0,1.0,1.0],)"
      R"("positions":[0,1,2,0,1],"segment_ends":[3,5]})");
}

}  // namespace
}  // namespace qianli::data
