#include "qianli/formats/indexed_dataset.h"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <stdexcept>

#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::source_path;
using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kData;
using Tokens = std::vector<int32_t>;

Tokens read(const IndexedDataset& dataset, size_t i) {
  Tokens tokens(static_cast<size_t>(dataset.lengths()[i]));
  dataset.sequence(i, 0, tokens);
  return tokens;
}

void add(IndexedDatasetWriter& writer, const Tokens& tokens, int8_t mode = 0) {
  writer.add_item(std::span<const int32_t>(tokens), mode);
}

// An index of two sequences of lengths 2 and 1 (int32) in one document.
struct Index {
  std::string magic{"MMIDIDX\0\0", 9};
  uint64_t version = 1;
  uint8_t code = 4;
  uint64_t sequences = 2, entries = 2;
  std::vector<int32_t> lengths{2, 1};
  std::vector<int64_t> offsets{0, 8}, documents{0, 2};
  std::string tail;

  std::string bytes() const {
    std::string out =
        magic + bytes_of(version) + bytes_of(code) + bytes_of(sequences) + bytes_of(entries);
    for (const auto x : lengths) out += bytes_of(x);
    for (const auto x : offsets) out += bytes_of(x);
    for (const auto x : documents) out += bytes_of(x);
    return out + tail;
  }
};

TEST(indexed_dataset, reads_a_corpus_in_megatrons_layout) {
  const auto corpus = IndexedDataset::open(source_path("tests/golden/formats/corpus"));
  EXPECT_EQ(corpus.size(), 10u);
  EXPECT_EQ(corpus.num_documents(), 10u);
  EXPECT_EQ(corpus.dtype(), TokenDtype::kI32);
  EXPECT_EQ(corpus.lengths().to_vector(), (Tokens{5, 9, 3, 7, 6, 4, 8, 2, 10, 6}));
  EXPECT_EQ(corpus.document_indices()[10], 10);
  EXPECT_TRUE(corpus.modes().empty());
  EXPECT_EQ(read(corpus, 2), (Tokens{14, 15, 16}));
  std::vector<int64_t> part(2);
  corpus.sequence(8, 3, part);
  EXPECT_EQ(part, (std::vector<int64_t>{47, 48}));
}

TEST(indexed_dataset, writer_makes_the_bytes_of_megatron) {
  TemporaryFolder folder;
  IndexedDatasetWriter writer(folder / "c");
  int32_t next = 0;
  for (const size_t length : {5, 9, 3, 7, 6, 4, 8, 2, 10, 6}) {
    Tokens tokens(length);
    std::iota(tokens.begin(), tokens.end(), next);
    next += static_cast<int32_t>(length);
    add(writer, tokens);
    writer.end_document();
  }
  EXPECT_FALSE(IndexedDataset::exists(folder / "c"));
  writer.commit();
  EXPECT_TRUE(IndexedDataset::exists(folder / "c"));
  const std::string idx = slurp(folder / "c.idx");
  EXPECT_EQ(idx.substr(0, 34), from_hex("4d4d494449445800000100000000000000040a00000000000000"
                                        "0b00000000000000"));
  EXPECT_EQ(idx.size(), 242u);
  EXPECT_EQ(idx, slurp(source_path("tests/golden/formats/corpus.idx")));
  EXPECT_EQ(slurp(folder / "c.bin"), slurp(source_path("tests/golden/formats/corpus.bin")));
}

TEST(indexed_dataset, optimal_dtype_is_megatrons_rule) {
  EXPECT_EQ(optimal_token_dtype(65499), TokenDtype::kU16);
  EXPECT_EQ(optimal_token_dtype(65500), TokenDtype::kI32);
  EXPECT_EQ(optimal_token_dtype(std::nullopt), TokenDtype::kI32);
}

TEST(indexed_dataset, every_whole_number_dtype_round_trips_and_keeps_its_range) {
  struct Case {
    TokenDtype dtype;
    int64_t lowest, highest;
  };
  for (const Case c : {Case{TokenDtype::kU8, 0, 255}, Case{TokenDtype::kI8, -128, 127},
                       Case{TokenDtype::kI16, -32768, 32767}, Case{TokenDtype::kU16, 0, 65535},
                       Case{TokenDtype::kI32, INT32_MIN, INT32_MAX}}) {
    SCOPED_TRACE(token_dtype_name(c.dtype));
    TemporaryFolder folder;
    IndexedDatasetWriter writer(folder / "c", c.dtype);
    const std::vector<int64_t> tokens{c.lowest, c.highest, 1};
    writer.add_item(tokens);
    for (const int64_t beyond : {c.lowest - 1, c.highest + 1}) {
      expect_error(kCode, "does not fit", [&] { writer.add_item(std::vector<int64_t>{beyond}); });
    }
    writer.end_document();
    writer.commit();
    const auto corpus = IndexedDataset::open(folder / "c");
    EXPECT_EQ(corpus.size(), 1u);
    std::vector<int64_t> back(3);
    corpus.sequence(0, 0, back);
    EXPECT_EQ(back, tokens);
    EXPECT_EQ(read(corpus, 0), Tokens(tokens.begin(), tokens.end()));
  }
}

TEST(indexed_dataset, tokens_beyond_32_bits_are_refused_where_32_are_asked_for) {
  TemporaryFolder folder;
  IndexedDatasetWriter writer(folder / "c", TokenDtype::kI64);
  const std::vector<int64_t> tokens{int64_t{1} << 40};
  writer.add_item(tokens);
  writer.end_document();
  writer.commit();
  const auto corpus = IndexedDataset::open(folder / "c");
  std::vector<int64_t> back(1);
  corpus.sequence(0, 0, back);
  EXPECT_EQ(back, tokens);
  expect_error(kCode, "c.bin: token 0 of sequence 0 does not fit into 32 bits",
               [&] { read(corpus, 0); });
}

TEST(indexed_dataset, documents_sequences_and_modes_survive_merging) {
  TemporaryFolder folder;
  IndexedDatasetWriter first(folder / "a", TokenDtype::kU16, true);
  add(first, {1, 2}, 1);
  add(first, {}, 2);
  first.end_document();
  first.end_document();
  first.commit();
  IndexedDatasetWriter second(folder / "b", TokenDtype::kU16, true);
  add(second, {7}, 3);
  second.end_document();
  second.add_index(folder / "a");
  second.add_index(folder / "a");
  second.commit();
  const auto merged = IndexedDataset::open(folder / "b");
  EXPECT_EQ(merged.lengths().to_vector(), (Tokens{1, 2, 0, 2, 0}));
  EXPECT_EQ(merged.document_indices().to_vector(), (std::vector<int64_t>{0, 1, 3, 3, 5, 5}));
  EXPECT_EQ(merged.modes().to_vector(), (std::vector<int8_t>{3, 1, 2, 1, 2}));
  EXPECT_EQ(read(merged, 3), (Tokens{1, 2}));
  IndexedDatasetWriter other(folder / "c", TokenDtype::kI32);
  expect_error(kCode, "expected int32 tokens without modes",
               [&] { other.add_index(folder / "a"); });
}

TEST(indexed_dataset, stored_offsets_are_used) {
  TemporaryFolder folder;
  Index index;
  index.offsets = {4, 0};
  spill(folder / "c.idx", index.bytes());
  spill(folder / "c.bin", bytes_of(10) + bytes_of(20) + bytes_of(30));
  const auto corpus = IndexedDataset::open(folder / "c");
  EXPECT_EQ(read(corpus, 0), (Tokens{20, 30}));
  EXPECT_EQ(read(corpus, 1), (Tokens{10}));
}

TEST(indexed_dataset, reading_beyond_a_sequence_throws) {
  const auto corpus = IndexedDataset::open(source_path("tests/golden/formats/corpus"));
  Tokens tokens(3);
  corpus.sequence(0, 2, tokens);
  EXPECT_EQ(tokens, (Tokens{2, 3, 4}));
  EXPECT_THROW(corpus.sequence(0, 3, tokens), std::out_of_range);
  EXPECT_THROW(corpus.sequence(0, -1, tokens), std::out_of_range);
  EXPECT_THROW(corpus.sequence(0, INT64_MAX, tokens), std::out_of_range);
  EXPECT_THROW(corpus.sequence(10, 0, tokens), std::out_of_range);
}

TEST(indexed_dataset, damaged_indexes_are_refused_with_the_reason) {
  const auto refused = [](std::string_view reason, const auto& damage) {
    Index index;
    damage(index);
    SCOPED_TRACE(reason);
    const std::string bytes = index.bytes();
    expect_error(kCode, reason, [&] { parse_dataset_index(as_bytes(bytes), "c.idx"); });
    expect_error(kCode, "c.idx", [&] { parse_dataset_index(as_bytes(bytes), "c.idx"); });
  };
  EXPECT_EQ(parse_dataset_index(as_bytes(Index().bytes()), "c.idx").covered_bytes, 12u);
  refused("MMIDIDX", [](Index& i) { i.magic[0] = 'N'; });
  refused("expected version 1, got 2", [](Index& i) { i.version = 2; });
  refused("unknown dtype code 0", [](Index& i) { i.code = 0; });
  refused("unknown dtype code 9", [](Index& i) { i.code = 9; });
  refused("truncated", [](Index& i) { i.sequences = 100; });
  refused("truncated", [](Index& i) { i.sequences = ~uint64_t{0} / 12 + 3; });
  refused("truncated", [](Index& i) { i.entries = uint64_t{1} << 61; });
  refused("1 unexpected bytes", [](Index& i) { i.tail = "x"; });
  refused("do not begin with 0", [](Index& i) { i.documents = {1, 2}; });
  refused("goes back", [](Index& i) { i.entries = 3, i.documents = {0, 3, 2}; });
  refused("last document entry to be 2, got 1", [](Index& i) { i.documents = {0, 1}; });
  refused("do not begin with 0", [](Index& i) { i.entries = 0, i.documents = {}; });
  refused("has length -1", [](Index& i) { i.lengths = {2, -1}; });
  refused("lies at offset -8", [](Index& i) { i.offsets = {0, -8}; });
  refused("lies at offset", [](Index& i) { i.offsets = {0, INT64_MAX - 3}; });
}

TEST(indexed_dataset, modes_are_seen_by_the_size_of_the_file) {
  Index index;
  index.tail = "\1\2";
  const auto bytes = index.bytes();
  const auto parsed = parse_dataset_index(as_bytes(bytes), "c.idx");
  EXPECT_EQ(parsed.modes.to_vector(), (std::vector<int8_t>{1, 2}));
}

TEST(indexed_dataset, floating_point_corpora_open_but_give_no_tokens) {
  TemporaryFolder folder;
  Index index;
  index.code = 7;
  spill(folder / "c.idx", index.bytes());
  spill(folder / "c.bin", std::string(12, '\0'));
  const auto corpus = IndexedDataset::open(folder / "c");
  expect_error(kCode, "floating point", [&] { read(corpus, 0); });
  EXPECT_THROW(IndexedDatasetWriter(folder / "d", TokenDtype::kF32), std::logic_error);
}

TEST(indexed_dataset, truncation_at_every_byte_is_refused) {
  TemporaryFolder folder;
  const auto prefix = source_path("tests/golden/formats/corpus").string();
  const std::string idx = slurp(prefix + ".idx"), bin = slurp(prefix + ".bin");
  const auto opens = [&] { IndexedDataset::open(folder / "c"); };
  spill(folder / "c.bin", bin);
  for (size_t size = 0; size < idx.size(); ++size) {
    spill(folder / "c.idx", idx.substr(0, size));
    expect_error(kCode, "c.idx", opens);
  }
  spill(folder / "c.idx", idx);
  for (size_t size = 0; size < bin.size(); ++size) {
    spill(folder / "c.bin", bin.substr(0, size));
    expect_error(kCode, "c.bin: expected 240 bytes", opens);
  }
  spill(folder / "c.bin", bin + "more");
  expect_error(kCode, "c.bin: expected 240 bytes as its index says, got 244", opens);
  fs::remove(folder / "c.bin");
  expect_error(kCode, "cannot open", opens);
}

TEST(indexed_dataset, unfinished_writer_leaves_nothing_and_an_open_document_is_an_error) {
  TemporaryFolder folder;
  {
    IndexedDatasetWriter writer(folder / "c");
    add(writer, {1});
    EXPECT_THROW(writer.commit(), std::logic_error);
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(indexed_dataset, empty_corpus_round_trips) {
  TemporaryFolder folder;
  IndexedDatasetWriter(folder / "c").commit();
  const auto corpus = IndexedDataset::open(folder / "c");
  EXPECT_EQ(corpus.size(), 0u);
  EXPECT_EQ(corpus.num_documents(), 0u);
}

}  // namespace
}  // namespace qianli::formats
