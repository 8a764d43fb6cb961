// Adapters taken out of the models that they were merged into.
#include "qianli/convert/adapter/unmerge.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/safetensors.h"
#include "tests/convert/made_adapter.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

std::string weights(const fs::path& folder) {
  return read_file(folder / "model.safetensors", FileRole::kCheckpoint, uint64_t{1} << 30);
}

// Products that no sum with a weight holds exactly.
testing::MadeAdapter made_adapter(int seed) {
  const auto base = formats::open_tensor_source(testing::source_path("tests/golden/models/llama2"));
  testing::MadeAdapter adapter;
  for (const std::string module :
       {"model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"}) {
    const auto& shape = base->at(module + ".weight").shape;
    adapter.add(module, shape[0], shape[1]);
  }
  for (auto& [name, matrix] : adapter.tensors) {
    for (float& value : matrix.values) value = (value + 0.01F * static_cast<float>(seed)) * 0.0371F;
  }
  return adapter;
}

class Unmerge : public ::testing::Test {
 protected:
  // base → merged, in this type.
  void merge(Dtype dtype, Dtype merged_dtype) {
    made_adapter(1).write(place_ / "adapter");
    write_hugging_face(*open_model(testing::source_path("tests/golden/models/llama2")),
                       place_ / "base", {.dtype = dtype}, {});
    const auto merged = open_model(place_ / "base", {.adapter = place_ / "adapter"});
    write_hugging_face(*merged, place_ / "merged", {.dtype = merged_dtype}, {});
    write_unmerge_record(*merged, place_ / "merged");
  }
  std::string refusal(const fs::path& folder, const fs::path& adapter) const {
    try {
      open_unmerged(folder, adapter);
    } catch (const CheckpointError& error) {
      return error.what();
    }
    return "nothing was refused";
  }
  testing::TemporaryFolder place_;
};

TEST_F(Unmerge, the_base_comes_back_bit_for_bit) {
  for (const auto& [dtype, merged_dtype] : {std::pair{Dtype::kF32, Dtype::kF32},
                                            {Dtype::kBF16, Dtype::kBF16},
                                            {Dtype::kF16, Dtype::kF16},
                                            {Dtype::kBF16, Dtype::kF32}}) {
    merge(dtype, merged_dtype);
    EXPECT_NE(weights(place_ / "merged"), weights(place_ / "base"));
    const auto record = formats::SafetensorsFile::open(place_ / "merged/unmerge.safetensors");
    // Subtracting alone would not have done it.
    if (dtype == merged_dtype) {
      EXPECT_EQ(record.entries().size(), 4u);
    }
    write_hugging_face(*open_unmerged(place_ / "merged", place_ / "adapter"), place_ / "again", {},
                       {});
    EXPECT_TRUE(weights(place_ / "again") == weights(place_ / "base"))
        << formats::dtype_name(dtype);
    for (const char* folder : {"base", "merged", "again", "adapter"})
      fs::remove_all(place_ / folder);
  }
}

TEST_F(Unmerge, what_is_not_the_base_is_refused) {
  merge(Dtype::kBF16, Dtype::kBF16);
  made_adapter(2).write(place_ / "other");
  EXPECT_NE(refusal(place_ / "merged", place_ / "other").find("before merging"), std::string::npos);
  EXPECT_NE(refusal(place_ / "base", place_ / "adapter").find("expected unmerge.safetensors"),
            std::string::npos);
  testing::MadeAdapter dora = made_adapter(1);
  dora.config["use_dora"] = true;
  dora.write(place_ / "dora");
  EXPECT_NE(refusal(place_ / "merged", place_ / "dora").find("DoRA"), std::string::npos);
  // Weights that were changed since.
  std::string bytes = weights(place_ / "merged");
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  write_file_atomically(place_ / "merged/model.safetensors", bytes, FileRole::kCheckpoint);
  EXPECT_NE(refusal(place_ / "merged", place_ / "adapter").find("before merging"),
            std::string::npos);
}

}  // namespace
}  // namespace qianli::convert
