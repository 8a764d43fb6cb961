#include "qianli/data/sft_data.h"

#include <gtest/gtest.h>

#include <functional>

#include "qianli/base/error.h"
#include "qianli/data/instruction/prepare.h"
#include "qianli/data/instruction/sample_encoder.h"
#include "tests/data/instruction_support.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing_support::words;

class SftDataTest : public ::testing::Test {
 protected:
  SftDataTest() {
    write("rows.jsonl", rows(60));
    config_.data.path = {{(folder_ / "rows.jsonl").string()}};
    config_.data.sequence_length = 64;
    config_.data.seed = 7;
    config_.data.instruction.chat_template = "default";
    config_.train.epochs = 2;
    config_.train.global_batch_size = 4;
  }
  static std::string rows(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      OrderedJson row = {{"instruction", i % 3 == 0 ? "Hi" : "Hi Bye Hi"}, {"output", "Hello"}};
      if (i % 4 == 1) row["history"] = OrderedJson::parse(R"([["Bye", "Ciao"]])");
      text += row.dump() + "\n";
    }
    return text;
  }
  void write(const std::string& name, const std::string& text) {
    write_file_atomically(folder_ / name, text, FileRole::kData);
  }
  SftData open() const {
    return open_sft_data({.config = config_,
                          .tokenizer = words(),
                          .tokenizer_folder = folder_.path(),
                          .cache = folder_ / "cache",
                          .layout = {.global_batch_size = *config_.train.global_batch_size},
                          .vocab_size = 64});
  }
  // Sets in the cache.
  size_t prepared() const {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator(folder_ / "cache" / "instruction"))
      count += entry.path().filename().string().ends_with("_packed.json");
    return count;
  }
  template <class Error>
  void expect_refused(const std::function<void()>& change, const std::string& reason) {
    const config::Config before = config_;
    change();
    try {
      open();
      ADD_FAILURE() << "expected an error about " << reason;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
    config_ = before;
  }

  testing::TemporaryFolder folder_;
  config::Config config_;
};

TEST_F(SftDataTest, rows_become_steps_of_epochs) {
  const SftData data = open();
  EXPECT_EQ(data.train->num_steps(), 30);
  EXPECT_EQ(data.validation, nullptr);
  EXPECT_EQ(data.train->summary().samples, 60);
  // "Human: Hi\nAssistant:" "Hello" "</s>": what is learnt is the answer.
  for (const Batch& batch : data.train->microbatches(0)) {
    EXPECT_EQ(batch.tokens.front(), 10);
    EXPECT_EQ(batch.labels.back(), 2);
    EXPECT_EQ(batch.loss_mask.back(), 1);
    EXPECT_EQ(batch.loss_mask.front(), 0);
  }
  ASSERT_EQ(data.told.size(), 3u);
  EXPECT_NE(data.told[0].find("rows look like the format alpaca"), std::string::npos);
  EXPECT_NE(data.told[1].find("60 samples of 60 rows"), std::string::npos) << data.told[1];
  EXPECT_NE(data.told[2].find("2 epochs = 30 steps of 4 samples"), std::string::npos)
      << data.told[2];
  EXPECT_TRUE(data.warnings.empty());
}

TEST_F(SftDataTest, rows_are_prepared_once_for_each_content_and_setting) {
  const std::string first = open().train->fingerprint();
  EXPECT_EQ(open().train->fingerprint(), first);
  EXPECT_EQ(prepared(), 1u);
  // Another name of the same content, with other times.
  write("rows.jsonl", rows(60));
  EXPECT_EQ(open().train->fingerprint(), first);
  EXPECT_EQ(prepared(), 1u);
  write("rows.jsonl", rows(61));
  EXPECT_NE(open().train->fingerprint(), first);
  EXPECT_EQ(prepared(), 2u);
  config_.data.instruction.train_on_prompt = true;
  open();
  EXPECT_EQ(prepared(), 3u);
  write("rows.jsonl", rows(60));
  config_.data.instruction.train_on_prompt = false;
  EXPECT_EQ(open().train->fingerprint(), first);
  EXPECT_EQ(prepared(), 3u);
}

TEST_F(SftDataTest, prepared_data_are_taken_as_they_are) {
  const InstructionOptions options{.rows = look_at_rows({.inputs = {folder_ / "rows.jsonl"}})};
  SampleOptions samples;
  samples.named_template = "default";
  prepare_instructions(folder_ / "out", options, {words(), samples});
  const SftData rows = open();
  config_.data.path = {{(folder_ / "out").string()}};
  const SftData data = open();
  for (int64_t step = 0; step < 30; ++step) {
    const auto one = rows.train->microbatches(step), two = data.train->microbatches(step);
    for (size_t m = 0; m < one.size(); ++m) {
      EXPECT_EQ(one[m].tokens, two[m].tokens);
      EXPECT_EQ(one[m].loss_mask, two[m].loss_mask);
    }
  }
}

TEST_F(SftDataTest, packed_data_hold_the_samples_that_were_packed) {
  InstructionOptions options{.rows = look_at_rows({.inputs = {folder_ / "rows.jsonl"}})};
  SampleOptions samples;
  samples.named_template = "default";
  samples.sequence_length = 64;
  const auto learnt = [&](const SftData& data) {
    int64_t count = 0, segments = 0;
    for (int64_t step = 0; step < data.train->num_steps(); ++step) {
      for (const Batch& batch : data.train->microbatches(step)) {
        for (size_t i = 0; i < batch.labels.size(); ++i)
          count += batch.loss_mask[i] > 0 && batch.labels[i] == 20;
        segments += std::ssize(batch.segment_ends);
      }
    }
    return std::pair(count, segments);
  };
  config_.train.epochs = 1;
  config_.train.global_batch_size = 1;  // no microbatch is left without a row
  EXPECT_EQ(learnt(open()).first, 60);
  for (const Packing packing : {Packing::kNeat, Packing::kPlain}) {
    options.packing = packing;
    samples.neat_pack = packing == Packing::kNeat;
    const std::string name = samples.neat_pack ? "neat" : "plain";
    prepare_instructions(folder_ / name, options, {words(), samples});
    config_.data.path = {{(folder_ / name).string()}};
    const auto [answers, segments] = learnt(open());
    EXPECT_EQ(answers, 60) << name;
    // Ends of text part the two turns of 15 samples in plain packs, as MindSpeed-LLM does.
    EXPECT_EQ(segments, samples.neat_pack ? 60 : 75) << name;
    expect_refused<ConfigError>([&] { config_.data.packing = "greedy"; }, "is packed already");
    expect_refused<ConfigError>([&] { config_.data.sequence_length = 32; }, "at least 63");
  }
}

TEST_F(SftDataTest, packing_fills_rows) {
  const int64_t alone = open().train->num_steps();
  for (const char* packing : {"greedy", "best_fit"}) {
    config_.data.packing = packing;
    const SftData data = open();
    EXPECT_LT(data.train->num_steps(), alone / 2);
    EXPECT_NE(data.told.back().find("% full"), std::string::npos) << data.told.back();
  }
}

TEST_F(SftDataTest, validation_has_samples_of_its_own) {
  config_.train.eval_every = 5;
  config_.data.split = "50,10";
  const SftData shared = open();
  EXPECT_EQ(shared.train->summary().samples, 50);
  ASSERT_NE(shared.validation, nullptr);
  EXPECT_EQ(shared.validation->summary().samples, 10);
  EXPECT_EQ(shared.validation->num_steps(), 3);
  write("other.jsonl", rows(7));
  config_.data.validation_path = (folder_ / "other.jsonl").string();
  const SftData own = open();
  EXPECT_EQ(own.train->summary().samples, 60);
  EXPECT_EQ(own.validation->summary().samples, 7);
}

TEST_F(SftDataTest, what_cannot_be_trained_on_is_refused) {
  write("bad.jsonl", rows(3) + "{\"instruction\": \"Hi\"}\n");
  config_.data.path = {{(folder_ / "bad.jsonl").string()}};
  const SftData most = open();
  EXPECT_EQ(most.train->summary().samples, 3);
  ASSERT_EQ(most.warnings.size(), 2u);
  EXPECT_NE(most.warnings[1].find("bad.jsonl:4"), std::string::npos) << most.warnings[1];
  // Also where the samples are prepared already.
  expect_refused<DataError>([&] { config_.data.bad_rows = "fail"; }, "bad.jsonl:4");
  write("pairs.jsonl", R"({"instruction": "Hi", "chosen": "Hello", "rejected": "No"})");
  expect_refused<DataError>([&] { config_.data.path = {{(folder_ / "pairs.jsonl").string()}}; },
                            "rows for preference");
  expect_refused<DataError>([&] { config_.data.path = {{"nowhere.jsonl"}}; }, "got nothing");
  expect_refused<ConfigError>([&] { config_.data.path[0].weight = 0.5; }, "without weights");
  expect_refused<ConfigError>([&] { config_.data.instruction.chat_template = "defaul"; },
                              "did you mean 'default'?");
  expect_refused<DataError>([&] { config_.data.instruction.chat_template = ""; },
                            "no chat template");
}

}  // namespace
}  // namespace qianli::data
