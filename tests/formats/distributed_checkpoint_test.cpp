#include "qianli/formats/distributed_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "qianli/formats/number_formats.h"
#include "tests/formats/pickles.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::source_path;
using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

fs::path golden() { return source_path("tests/golden/formats/dcp"); }

std::vector<float> rows(const TensorSource& source, std::string_view name, int64_t first,
                        int64_t count) {
  const TensorSpec& tensor = source.at(name);
  std::vector<std::byte> bytes(row_bytes(tensor) * static_cast<uint64_t>(count));
  source.read_rows(tensor, first, count, bytes);
  std::vector<float> out(bytes.size() * 8 / static_cast<size_t>(bit_size(tensor.dtype)));
  convert_numbers(tensor.dtype, bytes, Dtype::kF32, std::as_writable_bytes(std::span(out)));
  return out;
}

// What the golden tensors are parts of: 0, 1, 2, ... in [5, 7].
std::vector<float> counting(int64_t first, int64_t count) {
  std::vector<float> values;
  for (int64_t i = first * 7; i < (first + count) * 7; ++i) values.push_back(static_cast<float>(i));
  return values;
}

// Four ranks of torch 2.11 wrote it, with tensors cut in several ways.
TEST(distributed_checkpoint, reads_what_torch_writes) {
  const auto source = open_tensor_source(golden());
  for (const char* name : {"model.rows", "model.columns", "model.both"}) {
    EXPECT_EQ(source->at(name).shape, (std::vector<int64_t>{5, 7}));
    for (int64_t first = 0; first < 5; ++first) {
      for (int64_t count = 0; count <= 5 - first; ++count) {
        EXPECT_EQ(rows(*source, name, first, count), counting(first, count))
            << name << ", rows " << first << " + " << count;
      }
    }
  }
  EXPECT_EQ(source->at("model.columns").dtype, Dtype::kBF16);
  EXPECT_EQ(rows(*source, "model.vector", 0, 5), (std::vector<float>{0, 7, 14, 21, 28}));
  EXPECT_EQ(rows(*source, "plain", 0, 2), counting(0, 2));
  EXPECT_EQ(rows(*source, "scalar", 0, 1), std::vector<float>{1.5f});
  EXPECT_EQ(source->at("empty").shape, (std::vector<int64_t>{0, 3}));
  EXPECT_TRUE(rows(*source, "empty", 0, 0).empty());
}

TEST(distributed_checkpoint, objects_are_archives_of_their_own) {
  const auto checkpoint = DistributedCheckpoint::open(golden());
  EXPECT_EQ(checkpoint->object("step")->root().as_int(), 7);
  EXPECT_EQ(checkpoint->object("args")->root().find("lr")->as_float(), 0.5);
  expect_error(kCode, "expected 'absent', found none", [&] { checkpoint->object("absent"); });
  EXPECT_EQ(checkpoint->metadata().original_shapes.at("plain"), (std::vector<int64_t>{1, 2, 7}));
}

void copy_golden(const fs::path& folder) {
  for (const auto& file : fs::directory_iterator(golden())) {
    fs::copy(file.path(), folder / file.path().filename());
  }
}

TEST(distributed_checkpoint, missing_and_damaged_files_are_refused) {
  const TemporaryFolder place;
  copy_golden(place.path());
  const fs::path file = place / "__0_0.distcp";
  const std::string whole = slurp(file);
  spill(file, whole.substr(0, whole.size() - 1));
  expect_error(kCode, "__0_0.distcp: truncated",
               [&] { DistributedCheckpoint::open(place.path()); });
  spill(file, std::string(whole.size(), '\0'));
  const auto source = open_tensor_source(place.path());
  expect_error(kCode, "not a complete zip archive", [&] { rows(*source, "model.rows", 0, 5); });
  fs::remove(file);
  expect_error(kCode, "__0_0.distcp", [&] { DistributedCheckpoint::open(place.path()); });
  expect_error(kCode, ".metadata", [&] { DistributedCheckpoint::open(place / "absent"); });
}

using pickles::global;
using pickles::integer;
using pickles::text;

std::string size(const std::vector<int32_t>& values) {
  std::string body = "(";
  for (const int32_t value : values) body += integer(value);
  return body + "t";
}
std::string object(std::string_view name, const std::string& attributes) {
  return global("torch.distributed.checkpoint.metadata", name) + ")\x81}(" + attributes + "ub";
}
struct Box {
  std::vector<int32_t> offsets, sizes;
};

// Metadata of one float32 tensor `t` in these chunks, each in its own file unless `file` names one.
std::string metadata(const std::vector<int32_t>& shape, const std::vector<Box>& chunks,
                     const std::string& file = "__0_0.distcp", const std::string& more = "") {
  std::string boxes = "](", places = "}(";
  for (const Box& box : chunks) {
    boxes += object("ChunkStorageMetadata",
                    text("offsets") + size(box.offsets) + text("sizes") + size(box.sizes));
    places += object("MetadataIndex", text("fqn") + text("t") + text("offset") + size(box.offsets));
    places += object("_StorageInfo", text("relative_path") + text(file) + text("offset") + "K\1" +
                                         text("length") + "K\2" + more);
  }
  const std::string properties =
      global("x", "TensorProperties") + ")\x81(" + global("torch", "float32") + "Ntb";
  const std::string tensor =
      object("TensorStorageMetadata", text("properties") + properties + text("size") + size(shape) +
                                          text("chunks") + boxes + "e");
  return pickles::of(object("Metadata", text("state_dict_metadata") + "}" + text("t") + tensor +
                                            "s" + text("storage_data") + places + "u"));
}

DistributedMetadata parse(const std::string& bytes) {
  return parse_distributed_metadata(as_bytes(bytes), "x/.metadata", FileRole::kCheckpoint);
}

TEST(distributed_checkpoint, chunks_must_fill_their_tensor) {
  const auto good = parse(metadata({4, 6}, {{{2, 0}, {2, 6}}, {{0, 0}, {2, 3}}, {{0, 3}, {2, 3}}}));
  ASSERT_EQ(good.tensors.size(), 1u);
  EXPECT_EQ(good.tensors[0].chunks.size(), 3u);
  EXPECT_EQ(good.tensors[0].chunks[0].place.offset, 1u);
  const auto refused = [](const std::string& bytes, std::string_view reason) {
    expect_error(kCode, reason, [&] { parse(bytes); });
  };
  refused(metadata({4, 6}, {{{0, 0}, {2, 6}}}), "its chunks hold 12 of 24 elements");
  refused(metadata({4}, {{{0}, {3}}, {{2}, {1}}}), "overlap");
  refused(metadata({4, 6}, {{{0, 0}, {4, 4}}, {{0, 3}, {4, 2}}}), "overlap");
  refused(metadata({4}, {{{1}, {4}}}), "leaves its shape [4]");
  refused(metadata({4}, {{{0, 0}, {4, 1}}}), "leaves its shape");
  refused(metadata({4}, {{{-1}, {4}}}), "expected sizes as offset");
  refused(metadata({INT32_MAX, INT32_MAX, 4}, {}), "overflows");
  refused(metadata({4}, {{{0}, {4}}}, "../x"), "expected the name of a file in this folder");
  refused(
      metadata({4}, {{{0}, {4}}}, "f", text("transform_descriptors") + "]" + text("zstd") + "a"),
      "stored with transforms");
}

TEST(distributed_checkpoint, metadata_of_another_form_is_refused) {
  const auto refused = [](const std::string& body, std::string_view reason) {
    expect_error(kCode, reason, [&] { parse(pickles::of(body)); });
  };
  refused("N", "expected a dictionary storage_data");
  refused("}", "expected a dictionary storage_data");
  refused("}" + text("storage_data") + "}s", "expected a dictionary state_dict_metadata");
  refused("}" + text("storage_data") + "}K\1K\2ss", "an entry of storage_data is damaged");
  refused("}(" + text("storage_data") + "}" + text("state_dict_metadata") + "}K\1K\2su", "no text");
  const std::string whole = slurp(golden() / ".metadata");
  for (size_t end = 0; end < whole.size(); ++end) {
    EXPECT_THROW(parse(whole.substr(0, end)), CheckpointError) << end;
  }
}

}  // namespace
}  // namespace qianli::formats
