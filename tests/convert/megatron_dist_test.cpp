// Checkpoints that Megatron-core 0.12.1 wrote itself (tools/reference/megatron_dist.py).
#include "qianli/convert/megatron/dist.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using testing::weights;

fs::path golden(const std::string& name) {
  return testing::source_path("tests/golden/megatron_dist") / name;
}

// Megatron kept the norms of the bfloat16 model in float32.
TargetOptions as_before(const std::string& name) {
  return {.dtype = name == "mixtral" ? formats::Dtype::kBF16 : formats::Dtype::kF32};
}

class MegatronDist : public ::testing::TestWithParam<const char*> {};

// Equal layers in one tensor over two stages and two expert ranks, the vocabulary padded (Mixtral);
// a dense layer before one with experts, which keep their numbers (GLM-4.5). The arguments alone
// say which models they are.
TEST_P(MegatronDist, is_read_without_config) {
  const testing::TemporaryFolder folder;
  const auto model = open_model(golden(GetParam()) / "dist");
  EXPECT_EQ(model->spec.family, GetParam());
  EXPECT_TRUE(model->reader->unused().empty()) << model->reader->unused().front();
  write_hugging_face(*model, folder / "back", as_before(GetParam()), {});
  EXPECT_EQ(weights(golden(GetParam()) / "hf"), weights(folder / "back"));
}

TEST_P(MegatronDist, is_cut_anew) {
  const testing::TemporaryFolder folder;
  const auto model = open_model(golden(GetParam()) / "dist" / "iter_0000001",
                                {.config = (golden(GetParam()) / "hf").string()});
  write_megatron(*model, folder / "cut", {.layout = {.tensor = 2, .expert = 2}}, {});
  write_hugging_face(*open_model(folder / "cut"), folder / "back", as_before(GetParam()), {});
  EXPECT_EQ(weights(golden(GetParam()) / "hf"), weights(folder / "back"));
}

INSTANTIATE_TEST_SUITE_P(Families, MegatronDist, ::testing::Values("mixtral", "glm4_moe"),
                         [](const auto& info) { return std::string(info.param); });

TEST(MegatronDist, says_what_is_damaged) {
  const testing::TemporaryFolder folder;
  fs::copy(golden("mixtral") / "dist", folder / "dist", fs::copy_options::recursive);
  const fs::path iteration = folder / "dist" / "iter_0000001";
  const SourceOptions of_another{.config = "llama-tiny"};
  EXPECT_THROW(open_model(folder / "dist", of_another), ConfigError);
  fs::resize_file(iteration / "__0_0.distcp", 100);
  EXPECT_THROW(open_model(folder / "dist"), CheckpointError);
  fs::remove(iteration / "common.pt");
  EXPECT_THROW(open_model(folder / "dist"), CheckpointError);
}

}  // namespace
}  // namespace qianli::convert
