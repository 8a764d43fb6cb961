// Checkpoints that Megatron-core 0.12.1 wrote itself (tools/reference/megatron_dist.py).
#include "qianli/convert/megatron/dist.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/checkpoint_source.h"
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

// What every element of a state is, told by its place in the model.
std::vector<float> numbers(const ModelSource& model, size_t parameter) {
  const ForeignTensor tensor =
      rows_of(model.table, parameter, 0, matrix_rows(model.table[parameter]));
  std::vector<float> values(static_cast<size_t>(model.table[parameter].elements()));
  model.reader->assemble(tensor, formats::Dtype::kF32, std::as_writable_bytes(std::span(values)));
  return values;
}

class MegatronTrained : public ::testing::TestWithParam<const char*> {};

// After one step of Adam every moment is a share of the same gradient, and the weights have moved
// from where they were, decayed by a hundredth of the rate, as Adam moves them: which is to say
// that each lies where it belongs.
constexpr double kRate = 0.01;

TEST_P(MegatronTrained, states_are_those_of_their_parameters) {
  const std::string name = GetParam();
  const auto before = open_model(golden(name.substr(0, name.find('_'))) / "hf");
  const auto trained = open_model(golden(name) / "dist");
  ASSERT_TRUE(trained->states.has_value());
  EXPECT_EQ(trained->states->training.step, 1);
  EXPECT_EQ(trained->states->training.consumed_samples, 4);
  for (size_t i = 0; i < before->table.size(); ++i) {
    SCOPED_TRACE(before->table[i].name);
    const auto start = numbers(*before, i), weights = numbers(*trained->states->weights, i),
               exp_avg = numbers(*trained->states->exp_avg, i),
               exp_avg_sq = numbers(*trained->states->exp_avg_sq, i),
               rounded = numbers(*trained, i);
    for (size_t k = 0; k < start.size(); ++k) {
      ASSERT_NE(exp_avg[k], 0);
      EXPECT_NEAR(exp_avg[k] * exp_avg[k] / exp_avg_sq[k], 0.1 * 0.1 / 0.05, 1e-4);
      const double moved = exp_avg[k] / 0.1 / (std::sqrt(exp_avg_sq[k] / 0.05) + 1e-8);
      EXPECT_NEAR(weights[k], start[k] * (1 - kRate * 0.01) - kRate * moved, 1e-6);
      EXPECT_NEAR(rounded[k], weights[k], 0.004 * std::abs(weights[k]));
    }
  }
}

TEST_P(MegatronTrained, becomes_a_checkpoint_with_states) {
  const testing::TemporaryFolder folder;
  const auto trained = open_model(golden(GetParam()) / "dist");
  write_checkpoint(*trained, folder / "own", {}, {});
  const formats::Manifest manifest = formats::read_manifest(folder / "own");
  EXPECT_EQ(manifest.state, trained->states->training);
  EXPECT_EQ(manifest.tensors.size(), 3 * trained->table.size());
  const auto own = formats::open_checkpoint_source(
      folder / "own", manifest,
      {formats::TensorKind::kWeight, formats::TensorKind::kExpAvg, formats::TensorKind::kExpAvgSq});
  for (size_t i = 0; i < trained->table.size(); ++i) {
    for (const auto& [kind, model] :
         {std::pair(formats::TensorKind::kWeight, trained->states->weights),
          std::pair(formats::TensorKind::kExpAvg, trained->states->exp_avg),
          std::pair(formats::TensorKind::kExpAvgSq, trained->states->exp_avg_sq)}) {
      const auto& tensor = own->at(formats::state_name(kind, trained->table[i].name));
      std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
      own->read(tensor, std::as_writable_bytes(std::span(values)));
      EXPECT_EQ(values, numbers(*model, i)) << tensor.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, MegatronTrained,
                         ::testing::Values("mixtral_trained", "llama_trained"),
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
