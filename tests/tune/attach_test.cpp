// Adapter folders beside the weights of a model that only computes, against PEFT
// (tools/reference/golden_lora.py).
#include "qianli/tune/attach.h"

#include <gtest/gtest.h>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>

#include "qianli/base/error.h"
#include "qianli/infer/model.h"
#include "tests/support/engine_support.h"
#include "tests/support/test_paths.h"
#include "tests/tune/golden_adapters.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;

// tokens: [sequences, length].
at::Tensor logits_of(infer::Model& model, const at::Tensor& tokens, int64_t adapter) {
  const at::NoGradGuard no_grad;
  const int64_t sequences = tokens.size(0), length = tokens.size(1);
  std::vector<int64_t> starts;
  for (int64_t s = 0; s <= sequences; ++s) starts.push_back(s * length);
  const at::Tensor hidden =
      model.decoder().forward({.tokens = tokens.to(at::kLong).flatten(),
                               .positions = at::arange(length).repeat({sequences}),
                               .max_position = length - 1,
                               .segment_starts = starts,
                               .adapters = nn::same_adapter(adapter, sequences * length)});
  return model.decoder().logits(hidden).view({sequences, length, -1});
}

class AttachedAdapter : public ::testing::TestWithParam<std::string> {};

TEST_P(AttachedAdapter, logits_are_those_of_peft_and_of_the_merged_model) {
  const fs::path base = base_of(GetParam());
  const fs::path run = adapter_folder(GetParam()) / "run.safetensors";
  const at::Tensor prompt = read_tensor(run, "prompt");
  for (const std::string precision : {"fp64", "fp32"}) {
    const auto model = infer::Model::open(base, {.precision = precision, .device = "cpu"});
    const at::Tensor without = logits_of(*model, prompt, nn::kNoAdapter);
    const int64_t adapter =
        tune::attach(adapter_folder(GetParam()), model->spec(), model->parameters());
    const at::Tensor logits = logits_of(*model, prompt, adapter);
    expect_close(logits, read_tensor(run, "logits"), precision == "fp64" ? 1e-9 : 1e-5, "PEFT");
    EXPECT_GT(relative_error(logits, without), 1e-3);
    expect_close(logits_of(*model, prompt, nn::kNoAdapter), without, 0, "without");
    const auto merged =
        infer::Model::open(base, {.precision = precision,
                                  .device = "cpu",
                                  .source = {.adapter = adapter_folder(GetParam())}});
    expect_close(logits, logits_of(*merged, prompt, nn::kNoAdapter), 1e-5, "merged");
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, AttachedAdapter,
                         ::testing::Values("llama2", "llama2_some", "llama2_dora", "gpt2",
                                           "gpt_oss"));

std::string refusal(const std::string& base, const fs::path& adapter) {
  const auto model = open_golden(base, "fp32");
  try {
    tune::attach(adapter, model->spec(), model->parameters());
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(AttachedAdapter, what_does_not_fit_is_refused) {
  // Modules of another model, a shape of another, modules that are whole, no adapter at all.
  EXPECT_NE(refusal("gpt2", adapter_folder("llama2")).find("another model"), std::string::npos);
  EXPECT_NE(refusal("qwen3", adapter_folder("llama2")).find("expected"), std::string::npos);
  EXPECT_NE(refusal("qwen3", adapter_folder("qwen3")).find("whole"), std::string::npos);
  EXPECT_NE(refusal("llama2", golden_model_folder("gpt2")).find("holds none"), std::string::npos);
  EXPECT_NE(refusal("llama2", "absent").find("no such folder"), std::string::npos);
}

}  // namespace
}  // namespace qianli::testing
