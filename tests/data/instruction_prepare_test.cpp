#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "qianli/base/error.h"
#include "qianli/base/own_folder.h"
#include "qianli/data/instruction/prepare.h"
#include "qianli/data/instruction_dataset.h"
#include "tests/data/instruction_support.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;
using testing_support::Ids;
using testing_support::words;
constexpr int32_t x = text::chat::kIgnored;

class PrepareInstructions : public ::testing::Test {
 protected:
  PrepareInstructions() {
    std::string rows;
    for (int i = 0; i < 60; ++i) {
      OrderedJson row = {{"instruction", i % 3 == 0 ? "Hi" : "Hi Bye Hi"}, {"output", "Hello"}};
      if (i % 4 == 1) row["history"] = OrderedJson::parse(R"([["Bye", "Ciao"]])");
      rows += row.dump() + "\n";
    }
    write("rows.jsonl", rows);
  }
  void write(const std::string& name, const std::string& text) {
    write_file_atomically(folder_ / name, text, FileRole::kData);
  }
  InstructionOptions options(const std::string& name = "rows.jsonl") const {
    return {.rows = look_at_rows({.inputs = {folder_ / name}}), .threads = 1, .part_bytes = 300};
  }
  static SampleEncoder encoder(SampleOptions options = {}) {
    options.named_template = "default";
    return {words(), options};
  }
  std::string bytes(const std::string& name) const {
    return read_file(folder_ / name, FileRole::kData);
  }
  void expect_same(const std::string& a, const std::string& b) const {
    for (const char* field : {"input_ids", "attention_mask", "labels"}) {
      for (const char* suffix : {".bin", ".idx"}) {
        const std::string end = std::string("_packed_") + field + "_document" + suffix;
        EXPECT_EQ(bytes(a + end), bytes(b + end)) << end;
      }
    }
  }
  InstructionDataset open(const std::string& name, bool shuffle = false) const {
    return InstructionDataset::open(folder_ / name, {.shuffle = shuffle});
  }

  TemporaryFolder folder_;
};

TEST_F(PrepareInstructions, writes_fields_of_equal_lengths) {
  const auto manifest = prepare_instructions(folder_ / "out", options(), encoder());
  EXPECT_EQ(manifest.counts.rows, 60);
  EXPECT_EQ(manifest.counts.samples, 60);
  const auto dataset = open("out");
  EXPECT_EQ(dataset.fields(), (std::vector<std::string>{"attention_mask", "input_ids", "labels"}));
  EXPECT_EQ(dataset.field("input_ids", 0), (Ids{10, 9, 11, 12, 20, 2}));
  EXPECT_EQ(dataset.field("labels", 0), (Ids{x, x, x, x, 20, 2}));
  EXPECT_EQ(dataset.field("attention_mask", 0), Ids(6, 1));
  int64_t tokens = 0, trained = 0;
  for (int64_t i = 0; i < dataset.stored(); ++i) {
    const auto ids = dataset.field("input_ids", i), labels = dataset.field("labels", i);
    ASSERT_EQ(ids.size(), labels.size());
    tokens += static_cast<int64_t>(ids.size());
    for (const int32_t label : labels) trained += label != x;
  }
  EXPECT_EQ(manifest.counts.tokens, tokens);
  EXPECT_EQ(manifest.counts.trained, trained);
  EXPECT_FALSE(fs::exists(folder_ / "out_packed.parts"));
}

TEST_F(PrepareInstructions, threads_and_parts_change_nothing) {
  auto many = options();
  many.threads = 4;
  many.part_bytes = 50;
  prepare_instructions(folder_ / "one", options(), encoder());
  prepare_instructions(folder_ / "many", many, encoder());
  expect_same("one", "many");
  many.packing = Packing::kNeat;
  auto one = options();
  one.packing = Packing::kNeat;
  const auto packs = encoder({.sequence_length = 30, .neat_pack = true});
  prepare_instructions(folder_ / "one_packed", one, packs);
  prepare_instructions(folder_ / "many_packed", many, packs);
  expect_same("one_packed", "many_packed");
}

TEST_F(PrepareInstructions, goes_on_after_sigkill) {
  const pid_t child = ::fork();
  if (child == 0) {
    auto doomed = options();
    doomed.report = [](uint64_t done, uint64_t total) {
      if (done > total / 2) ::raise(SIGKILL);
    };
    prepare_instructions(folder_ / "out", doomed, encoder());
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(InstructionDataset::exists(folder_ / "out"));
  uint64_t first_done = 0;
  auto again = options();
  again.report = [&](uint64_t done, uint64_t) {
    if (first_done == 0) first_done = done;
  };
  prepare_instructions(folder_ / "out", again, encoder());
  EXPECT_GT(first_done, 0u);  // parts of the first try are not made anew
  prepare_instructions(folder_ / "undisturbed", options(), encoder());
  expect_same("out", "undisturbed");
}

TEST_F(PrepareInstructions, tables_in_columns_give_what_their_rows_give) {
  if (!fs::exists(own_folder() / "libqianli_arrow.so"))
    GTEST_SKIP() << "this build has no Apache Arrow (QIANLI_ARROW_DIR)";
  const fs::path tables = testing::source_path("tests/golden/columnar");
  for (const char* name : {"rows.jsonl", "rows.parquet", "stream.arrow", "file.arrow"}) {
    InstructionOptions made = options();
    made.rows = look_at_rows({.inputs = {tables / name}, .format = RowFormat::kAlpaca});
    const auto manifest = prepare_instructions(folder_ / name, made, encoder());
    EXPECT_EQ(manifest.counts.rows, 40) << name;
    EXPECT_GT(manifest.counts.samples, 30) << name;
    expect_same(name, "rows.jsonl");
  }
}

TEST_F(PrepareInstructions, packs_keep_every_label) {
  const auto plain = prepare_instructions(folder_ / "plain", options(), encoder());
  auto packing = options();
  packing.packing = Packing::kNeat;
  const auto manifest = prepare_instructions(folder_ / "out", packing,
                                             encoder({.sequence_length = 30, .neat_pack = true}));
  EXPECT_EQ(manifest.counts.trained, plain.counts.trained);
  const auto dataset = open("out");
  EXPECT_EQ(dataset.packed_length(), 30);
  EXPECT_TRUE(dataset.neatly_packed());
  EXPECT_EQ(dataset.stored(), manifest.counts.sequences);
  int64_t trained = 0;
  for (int64_t i = 0; i < dataset.stored(); ++i) {
    const auto mask = dataset.field("attention_mask", i), ids = dataset.field("input_ids", i),
               labels = dataset.field("labels", i);
    ASSERT_EQ(ids.size(), 30u);
    for (size_t k = 0; k < mask.size(); ++k) {
      EXPECT_TRUE(mask[k] != 0 || (ids[k] == 1 && labels[k] == x));
      if (labels[k] != x) ++trained;
    }
    EXPECT_EQ(mask[0], 1);
    EXPECT_EQ(mask.back(), 0);  // a place is always left for padding
  }
  EXPECT_EQ(trained, manifest.counts.trained);
}

TEST_F(PrepareInstructions, bad_rows_are_counted_or_fatal) {
  write("bad.jsonl",
        "{\"instruction\": \"Hi\", \"output\": \"Hello\"}\n{\"instruction\": \"Hi\"}\n{\n");
  const auto manifest = prepare_instructions(folder_ / "out", options("bad.jsonl"), encoder());
  EXPECT_EQ(manifest.counts.rows, 3);
  EXPECT_EQ(manifest.counts.bad_rows, 2);
  ASSERT_EQ(manifest.counts.first_bad_rows.size(), 2u);
  const std::string first = manifest.counts.first_bad_rows[0];
  EXPECT_NE(first.find("bad.jsonl:2: expected the column 'output'"), first.npos) << first;
  auto strict = options("bad.jsonl");
  strict.fail_on_bad_rows = true;
  EXPECT_THROW(prepare_instructions(folder_ / "other", strict, encoder()), DataError);
  EXPECT_FALSE(InstructionDataset::exists(folder_ / "other"));
}

TEST_F(PrepareInstructions, files_of_several_formats_are_no_data_set) {
  write("chat.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}]})");
  EXPECT_THROW(look_at_rows({.inputs = {folder_.path()}}), DataError);
  EXPECT_EQ(look_at_rows({.inputs = {folder_.path()}, .format = RowFormat::kAlpaca}).files.size(),
            2u);
}

// Samples of an independent renderer: tools/reference/check_instruction.py.
TEST_F(PrepareInstructions, real_rows_with_real_tokenizers) {
  QIANLI_REQUIRE_DATA(data, "sft/identity.json");
  const fs::path shared = data.parent_path().parent_path();
  const auto path = testing::source_path("tests/golden/instruction.json");
  int number = 0;
  for (const Json& golden : read_json(path, FileRole::kData)) {
    SCOPED_TRACE(golden.at("template").get<std::string>() + " " +
                 golden.at("file").get<std::string>());
    const fs::path model = shared / "tokenizers" / golden.at("tokenizer").get<std::string>();
    const SampleEncoder real(text::Tokenizer::load(model),
                             {.named_template = golden.at("template").get<std::string>()});
    const std::string name = "golden" + std::to_string(number++);
    const auto manifest = prepare_instructions(
        folder_ / name,
        {.rows = look_at_rows({.inputs = {shared / golden.at("file").get<std::string>()}})}, real);
    EXPECT_EQ(manifest.counts.samples, golden.at("rows"));
    EXPECT_EQ(manifest.counts.tokens, golden.at("tokens"));
    EXPECT_EQ(open(name).field("input_ids", 0), golden.at("first")[0].get<Ids>());
    EXPECT_EQ(open(name).field("labels", 0), golden.at("first")[1].get<Ids>());
  }
  EXPECT_EQ(number, 10);
}

TEST_F(PrepareInstructions, no_sample_at_all_is_an_error) {
  EXPECT_THROW(prepare_instructions(folder_ / "out", options(),
                                    encoder({.sequence_length = 3, .cut = CutRule::kDrop})),
               DataError);
}

TEST_F(PrepareInstructions, the_same_is_not_made_twice_and_other_data_are_not_replaced) {
  prepare_instructions(folder_ / "out", options(), encoder());
  std::atomic<int> reports = 0;
  auto again = options();
  again.report = [&](uint64_t, uint64_t) { ++reports; };
  prepare_instructions(folder_ / "out", again, encoder());
  EXPECT_EQ(reports, 0);
  const auto other = encoder({.append_eod = true});
  EXPECT_THROW(prepare_instructions(folder_ / "out", again, other), DataError);
  again.overwrite = true;
  prepare_instructions(folder_ / "out", again, other);
  EXPECT_GT(reports, 0);
  EXPECT_EQ(open("out").field("input_ids", 0).size(), 7u);
}

TEST_F(PrepareInstructions, changed_files_are_noticed) {
  prepare_instructions(folder_ / "out", options(), encoder());
  std::string labels = bytes("out_packed_labels_document.bin");
  labels[3] ^= 1;
  write("out_packed_labels_document.bin", labels);
  EXPECT_THROW(open("out"), DataError);
  prepare_instructions(folder_ / "out", options(), encoder());
  EXPECT_NO_THROW(open("out"));
  fs::remove(folder_ / "out_packed.json");
  prepare_instructions(folder_ / "few", options(),
                       encoder({.sequence_length = 7, .cut = CutRule::kDrop}));
  for (const char* suffix : {".bin", ".idx"})
    fs::copy_file(folder_ / (std::string("few_packed_labels_document") + suffix),
                  folder_ / (std::string("out_packed_labels_document") + suffix),
                  fs::copy_options::overwrite_existing);
  EXPECT_THROW(open("out"), DataError);  // not equally many
}

TEST_F(PrepareInstructions, the_order_is_numpys_epoch_for_epoch) {
  prepare_instructions(folder_ / "out", options(), encoder());
  // numpy.random.RandomState(1234) shuffles arange(3, 10), and goes on to shuffle it again.
  const auto dataset = InstructionDataset::open(
      folder_ / "out", {.split = Split::kValidation, .split_text = "3,7,50", .num_samples = 8});
  std::vector<int64_t> order;
  for (int64_t i = 0; i < dataset.size(); ++i) order.push_back(dataset.sample(i));
  EXPECT_EQ(order, (std::vector<int64_t>{5, 4, 9, 3, 7, 8, 6, 8, 3, 6, 7, 5, 9, 4}));
  EXPECT_THROW(dataset.sample(14), DataError);
  EXPECT_THROW(dataset.field("values", 0), DataError);
  EXPECT_NE(dataset.fingerprint(), open("out").fingerprint());
  EXPECT_EQ(open("out").fingerprint(), open("out").fingerprint());
}

TEST(InstructionDataset, positions_and_segments_of_packed_sequences) {
  const Ids mask = {1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0};
  const Ids ids = {5, 5, 2, 5, 2, 5, 5, 5, 2, 0, 0, 0};
  using Places = std::vector<int64_t>;
  const auto neat = packed_positions(ids, mask, true, 2);
  EXPECT_EQ(neat, (Places{0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0}));
  EXPECT_EQ(packed_segment_ends(neat, mask, true), (Places{5, 9, 12}));
  const auto plain = packed_positions(ids, Ids(12, 1), false, 2);
  EXPECT_EQ(plain, (Places{0, 1, 2, 0, 1, 0, 1, 2, 3, 0, 1, 2}));
  EXPECT_EQ(packed_segment_ends(plain, Ids(12, 1), false), (Places{3, 5, 9, 12}));
}

}  // namespace
}  // namespace qianli::data
