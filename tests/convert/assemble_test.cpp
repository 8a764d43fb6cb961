// Tensors put together piece by piece are those put together at once.
#include "qianli/convert/assemble.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <set>
#include <stdexcept>

#include "qianli/base/threads.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/convert/pipeline.h"
#include "qianli/model/hugging_face.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

using formats::Dtype;
using formats::TensorSpec;

// What a container that has to compute its bytes looks like.
class Unmapped : public formats::TensorSource {
 public:
  explicit Unmapped(std::shared_ptr<const TensorSource> inner)
      : TensorSource("unmapped"), inner_(std::move(inner)) {
    for (const TensorSpec& tensor : inner_->tensors()) add(tensor);
  }

 private:
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    inner_->read_rows(inner_->tensors()[index], first, count, out);
  }
  std::shared_ptr<const TensorSource> inner_;
};

struct Golden {
  Golden(const std::string& name, bool mapped) {
    const auto folder = testing::source_path("tests/golden/models/" + name);
    spec = model::load_spec(folder);
    table = model::parameter_table(spec);
    std::shared_ptr<const formats::TensorSource> source = formats::open_tensor_source(folder);
    if (!mapped) source = std::make_shared<Unmapped>(source);
    reader = std::make_unique<ParameterReader>(
        table, stored_tensors(table, FolderNames(spec, *source)), std::vector{source}, name);
  }
  model::ModelSpec spec;
  Table table;
  std::unique_ptr<ParameterReader> reader;
};

std::vector<std::byte> buffer_for(const ForeignTensor& tensor, Dtype dtype) {
  return std::vector<std::byte>(TensorSpec{"", dtype, tensor.shape}.num_bytes());
}

std::vector<std::byte> in_windows(const ParameterReader& reader, const ForeignTensor& tensor,
                                  Dtype dtype, int64_t rows) {
  auto bytes = buffer_for(tensor, dtype);
  const auto step = static_cast<size_t>(rows * row_elements(tensor) * formats::bit_size(dtype) / 8);
  const auto width = static_cast<size_t>(formats::bit_size(dtype)) / 8;
  for (size_t first = 0; first < bytes.size(); first += step) {
    const auto window = std::span(bytes).subspan(first, std::min(step, bytes.size() - first));
    reader.assemble(tensor, dtype, static_cast<int64_t>(first / width), window);
  }
  return bytes;
}

struct Case {
  const char* model;
  MegatronLayout layout;
};

// Cuts, weaving (query groups), transposing (GPT-2, grouped experts are covered by the families'
// round trips), padding.
const Case kCases[] = {{"qwen2", {.tensor = 2, .vocab_divisor = 64}},
                       {"gpt2", {.tensor = 4}},
                       {"llama2", {.tensor = 2, .names = MegatronNames::kLegacy}}};

TEST(Assemble, windows_make_the_whole) {
  for (const Case& c : kCases) {
    const Golden mapped(c.model, true), unmapped(c.model, false);
    auto tensors = megatron_tensors(mapped.spec, mapped.table, c.layout);
    for (ForeignTensor& tensor : hugging_face_tensors(mapped.table)) tensors.push_back(tensor);
    for (const ForeignTensor& tensor : tensors) {
      for (const Dtype dtype : {Dtype::kF32, Dtype::kF64}) {
        auto whole = buffer_for(tensor, dtype);
        mapped.reader->assemble(tensor, dtype, whole);
        for (const int64_t rows : {1, 3, 7}) {
          ASSERT_EQ(in_windows(*mapped.reader, tensor, dtype, rows), whole) << tensor.name;
        }
        ASSERT_EQ(in_windows(*unmapped.reader, tensor, dtype, 5), whole) << tensor.name;
      }
    }
  }
}

TEST(Assemble, threads_share_rows_that_are_read) {
  const Golden mapped("qwen2", true), unmapped("qwen2", false);
  const auto tensors = megatron_tensors(mapped.spec, mapped.table, {.tensor = 2});
  std::atomic<int> wrong = 0;
  parallel_for(static_cast<int64_t>(4 * tensors.size()), 4, [&](int64_t i) {
    const ForeignTensor& tensor = tensors[static_cast<size_t>(i) % tensors.size()];
    auto whole = buffer_for(tensor, Dtype::kF32);
    mapped.reader->assemble(tensor, Dtype::kF32, whole);
    if (in_windows(*unmapped.reader, tensor, Dtype::kF32, 2) != whole) ++wrong;
  });
  EXPECT_EQ(wrong, 0);
}

TEST(InOrder, hands_pieces_over_in_order_and_uses_few_buffers) {
  for (const int threads : {1, 3}) {
    std::set<const std::byte*> buffers;
    std::vector<int> taken;
    Buffers kept;
    in_order(
        100, threads, kept,
        [](int64_t i, std::vector<std::byte>& buffer) { buffer.assign(8, std::byte(i)); },
        [&](std::span<const std::byte> buffer) {
          buffers.insert(buffer.data());
          taken.push_back(static_cast<int>(buffer[7]));
        });
    ASSERT_EQ(taken.size(), 100U);
    EXPECT_TRUE(std::ranges::is_sorted(taken));
    EXPECT_LE(buffers.size(), static_cast<size_t>(2 * threads));
  }
}

TEST(InOrder, the_first_failure_of_either_side_ends_the_work) {
  const auto fill = [](int64_t, std::vector<std::byte>& buffer) { buffer.resize(1); };
  const auto run = [&](int64_t bad_make, int bad_take) {
    int taken = 0;
    Buffers buffers;
    in_order(
        50, 2, buffers,
        [&](int64_t i, std::vector<std::byte>& buffer) {
          if (i == bad_make) throw std::runtime_error("make");
          fill(i, buffer);
        },
        [&](std::span<const std::byte>) {
          if (taken++ == bad_take) throw std::runtime_error("take");
        });
  };
  EXPECT_THROW(run(20, -1), std::runtime_error);
  EXPECT_THROW(run(-1, 20), std::runtime_error);
  run(-1, -1);
}

}  // namespace
}  // namespace qianli::convert
