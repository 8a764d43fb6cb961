#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/data/instruction/dataset_info.h"
#include "qianli/data/instruction_dataset.h"
#include "tests/data/instruction_support.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using testing_support::Ids;
using testing_support::words;

// Two data sets: five rows of Alpaca's answered "Hello", three of ShareGPT's answered "Ciao".
class InstructionSets : public ::testing::Test {
 protected:
  InstructionSets() {
    std::string alpaca, sharegpt;
    for (int i = 0; i < 5; ++i) alpaca += row(i, "Hello") + "\n";
    for (int i = 0; i < 3; ++i) {
      const OrderedJson messages = {{{"role", "user"}, {"text", question(i)}},
                                    {{"role", "bot"}, {"text", "Ciao"}}};
      sharegpt += OrderedJson({{"talk", messages}}).dump() + "\n";
    }
    write("a.jsonl", alpaca);
    write("b.jsonl", sharegpt);
    info({{"a", {{"file_name", "a.jsonl"}, {"columns", {{"prompt", "ask"}, {"response", "say"}}}}},
          {"b",
           {{"file_name", "b.jsonl"},
            {"formatting", "sharegpt"},
            {"columns", {{"messages", "talk"}}},
            {"tags",
             {{"role_tag", "role"},
              {"content_tag", "text"},
              {"user_tag", "user"},
              {"assistant_tag", "bot"}}}}}});
  }
  static std::string question(int i) { return i % 2 == 0 ? "Hi" : "Hi Bye Hi"; }
  static std::string row(int i, const std::string& answer) {
    return OrderedJson({{"ask", question(i)}, {"say", answer}}).dump();
  }
  void write(const std::string& name, const std::string& text) {
    write_file_atomically(folder_ / name, text, FileRole::kData);
  }
  void info(const OrderedJson& json) { write("dataset_info.json", json.dump()); }
  InstructionOptions options(const std::vector<std::string>& names, Mixing mixing = {}) const {
    auto sets = listed_rows(folder_.path(), names);
    InstructionOptions options{.rows = sets[0], .mixing = mixing, .threads = 2, .part_bytes = 60};
    options.more.assign(sets.begin() + 1, sets.end());
    return options;
  }
  static SampleEncoder encoder(SampleOptions options = {}) {
    options.named_template = "default";
    return {words(), options};
  }
  InstructionManifest prepare(const std::string& name, const InstructionOptions& options,
                              const SampleOptions& samples = {}) const {
    return prepare_instructions(folder_ / name, options, encoder(samples));
  }
  // The answers: 20 Hello, 21 Ciao.
  Ids answers(const std::string& name) const {
    const auto dataset = InstructionDataset::open(folder_ / name, {.shuffle = false});
    Ids all;
    for (int64_t i = 0; i < dataset.stored(); ++i) {
      const Ids labels = dataset.field("labels", i);
      all.push_back(labels.at(labels.size() - 2));
    }
    return all;
  }
  void expect_same(const std::string& a, const std::string& b) const {
    for (const char* field : {"input_ids", "attention_mask", "labels"}) {
      for (const char* suffix : {".bin", ".idx"}) {
        const std::string end = std::string("_packed_") + field + "_document" + suffix;
        EXPECT_EQ(read_file(folder_ / (a + end), FileRole::kData),
                  read_file(folder_ / (b + end), FileRole::kData))
            << end;
      }
    }
  }

  TemporaryFolder folder_;
};

TEST_F(InstructionSets, follow_each_other_or_take_turns) {
  prepare("concat", options({"a", "b"}));
  EXPECT_EQ(answers("concat"), (Ids{20, 20, 20, 20, 20, 21, 21, 21}));
  const auto under =
      prepare("under", options({"b", "a"}, {.strategy = MixStrategy::kInterleaveUnder}));
  EXPECT_EQ(answers("under"), (Ids{21, 20, 21, 20, 21, 20}));
  EXPECT_EQ(under.counts.samples, 6);
  const auto over =
      prepare("over", options({"a", "b"}, {.strategy = MixStrategy::kInterleaveOver}));
  EXPECT_EQ(answers("over"), (Ids{20, 21, 20, 21, 20, 21, 20, 21, 20, 21}));
  EXPECT_EQ(over.counts.samples, 10);
  EXPECT_EQ(over.counts.rows, 8);
  const auto dataset = InstructionDataset::open(folder_ / "over", {.shuffle = false});
  int64_t tokens = 0;
  for (int64_t i = 0; i < dataset.stored(); ++i)
    tokens += static_cast<int64_t>(dataset.field("input_ids", i).size());
  EXPECT_EQ(over.counts.tokens, tokens);
  EXPECT_EQ(over.counts.trained, 20);
  // default_rng(1234) draws 1, 0, 1, and then 0.
  prepare("drawn", options({"a", "b"}, {.strategy = MixStrategy::kInterleaveUnder,
                                        .probabilities = {0.5, 0.5}}));
  EXPECT_EQ(answers("drawn"), (Ids{21, 20, 21, 20, 20, 20, 20}));
}

TEST_F(InstructionSets, bad_rows_are_none_and_long_ones_keep_their_turn) {
  write("a.jsonl", row(0, "Hello") + "\n{}\n" + row(1, "Hello") + "\n" + row(2, "Hello") + "\n");
  // Of a the second usable row is too long, of b the second one, too.
  const auto manifest =
      prepare("out", options({"a", "b"}, {.strategy = MixStrategy::kInterleaveUnder}),
              {.sequence_length = 8, .cut = CutRule::kDrop});
  EXPECT_EQ(manifest.counts.bad_rows, 1);
  EXPECT_EQ(manifest.counts.too_long, 2);
  EXPECT_EQ(answers("out"), (Ids{20, 21, 20, 21}));
}

TEST_F(InstructionSets, first_rows_only) {
  auto some = options({"a", "b"});
  some.rows.max_rows = 2;
  some.more[0].max_rows = 1;
  EXPECT_EQ(prepare("some", some).counts.rows, 3);
  EXPECT_EQ(answers("some"), (Ids{20, 20, 21}));
  some.rows.max_rows = 100;
  EXPECT_EQ(prepare("all", some).counts.rows, 6);
}

TEST_F(InstructionSets, several_files_count_together) {
  write("list.json", "[" + row(0, "Hello") + "," + row(1, "Ciao") + "," + row(2, "Hello") + "]");
  const std::string keys = R"({"prompt": "ask", "response": "say"})";
  auto some = look_at_rows({.inputs = {folder_ / "list.json", folder_ / "a.jsonl"},
                            .format = RowFormat::kAlpaca,
                            .map_keys = keys,
                            .max_rows = 4});
  EXPECT_EQ(prepare("four", {.rows = some, .part_bytes = 10}).counts.rows, 4);
  EXPECT_EQ(answers("four"), (Ids{20, 21, 20, 20}));
  some.max_rows = 2;
  EXPECT_EQ(prepare("two", {.rows = some, .part_bytes = 1000}).counts.rows, 2);
}

TEST_F(InstructionSets, groups_of_rows_make_no_difference_unpacked) {
  auto one = options({"a", "b"}), four = one;
  four.num_subs = 4;
  prepare("one", one);
  prepare("four", four);
  expect_same("one", "four");
}

// 60 rows in four groups packed together are the four quarters packed one by one.
TEST_F(InstructionSets, groups_of_rows_are_packed_by_themselves) {
  std::string all;
  for (int i = 0; i < 61; ++i) all += row(i * i % 7, i % 3 == 0 ? "Ciao" : "Hello") + "\n";
  write("all.jsonl", all);
  const auto rows = [&](const std::string& name) {
    return look_at_rows({.inputs = {folder_ / name},
                         .format = RowFormat::kAlpaca,
                         .map_keys = R"({"prompt": "ask", "response": "say"})"});
  };
  const SampleOptions samples{.sequence_length = 40, .neat_pack = true};
  prepare("groups", {.rows = rows("all.jsonl"), .packing = Packing::kNeat, .num_subs = 4}, samples);
  const auto groups = InstructionDataset::open(folder_ / "groups", {.shuffle = false});
  int64_t at = 0;
  size_t begin = 0;
  for (int part = 0; part < 5; ++part) {  // 15 rows each, and one more
    size_t end = begin;
    for (int i = 0; i < 15 && end < all.size(); ++i) end = all.find('\n', end) + 1;
    const std::string name = "part" + std::to_string(part);
    write(name + ".jsonl", all.substr(begin, end - begin));
    prepare(name, {.rows = rows(name + ".jsonl"), .packing = Packing::kNeat}, samples);
    const auto alone = InstructionDataset::open(folder_ / name, {.shuffle = false});
    for (int64_t i = 0; i < alone.stored(); ++i, ++at) {
      for (const char* field : {"input_ids", "attention_mask", "labels"})
        EXPECT_EQ(groups.field(field, at), alone.field(field, i)) << name << " " << field;
    }
    begin = end;
  }
  EXPECT_EQ(groups.stored(), at);
}

TEST_F(InstructionSets, another_mixture_is_other_data) {
  prepare("out", options({"a", "b"}, {.strategy = MixStrategy::kInterleaveUnder}));
  EXPECT_THROW(prepare("out", options({"a", "b"}, {.strategy = MixStrategy::kInterleaveOver})),
               DataError);
  EXPECT_THROW(prepare("out", options({"a", "b"})), DataError);
}

TEST_F(InstructionSets, entries_that_cannot_be_used) {
  const auto refused = [&](const OrderedJson& entry, const std::string& part) {
    info({{"x", entry}});
    try {
      listed_rows(folder_.path(), {"x"});
      ADD_FAILURE() << entry;
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused({{"hf_hub_url", "someone/data"}}, "expected a file_name, got hf_hub_url");
  refused({{"file_name", "a.jsonl"}, {"formating", "alpaca"}}, "did you mean 'formatting'?");
  refused({{"file_name", "a.jsonl"}, {"formatting", "chat"}}, "expected the formatting");
  refused({{"file_name", "a.jsonl"}, {"columns", {{"question", "ask"}}}}, "'question'");
  refused({{"file_name", 7}}, "expected a text under 'file_name'");
  try {
    listed_rows(folder_.path(), {"y"});
    ADD_FAILURE();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("known are x"), std::string::npos) << error.what();
  }
  info({{"x", {{"file_name", "a.jsonl"}, {"columns", {{"prompt", "aks"}}}}}});
  EXPECT_THROW(listed_rows(folder_.path(), {"x"}), DataError);
}

TEST_F(InstructionSets, preference_pairs_and_answers_do_not_mix) {
  write("p.jsonl", R"({"instruction": "Hi", "chosen": "Hello", "rejected": "No"})");
  info({{"a", {{"file_name", "a.jsonl"}}}, {"p", {{"file_name", "p.jsonl"}, {"ranking", true}}}});
  EXPECT_THROW(listed_rows(folder_.path(), {"a", "p"}), ConfigError);
  EXPECT_EQ(listed_rows(folder_.path(), {"p"})[0].task, InstructionTask::kPreference);
}

}  // namespace
}  // namespace qianli::data
