// Models whose matrices are in blocks of few bits.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/convert/write_model.h"
#include "qianli/infer/generate.h"
#include "qianli/infer/model.h"
#include "qianli/infer/score.h"
#include "qianli/ops/block_weight.h"
#include "tests/infer/golden.h"
#include "tests/infer/requests.h"
#include "tests/infer/small_specs.h"
#include "tests/support/engine_support.h"
#include "tests/support/test_paths.h"

namespace qianli::infer {
namespace {

using testing::golden_tensor;

std::unique_ptr<Model> open_quantized(const std::filesystem::path& path,
                                      const std::string& precision, const std::string& quantize) {
  return Model::open(path, {.precision = precision, .device = "cpu", .quantize = quantize});
}

at::Tensor all_logits(Model& model, const TokenIds& ids) {
  std::vector<at::Tensor> rows;
  const std::vector<TokenIds> one{ids};
  score(model, one, {}, [&](const at::Tensor& block) { rows.push_back(block.clone()); });
  return at::cat(rows).to(at::kDouble);
}

double rms(const at::Tensor& x) { return std::sqrt(x.square().mean().item<double>()); }

class QuantizedGolden : public ::testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> open(const std::string& precision, const std::string& quantize) const {
    return open_quantized(testing::golden_model_folder(GetParam()), precision, quantize);
  }
  TokenIds tokens() const { return testing::rows_of(golden_tensor(GetParam(), "tokens"))[0]; }
  // A model of numbers: those that the blocks of `quantized` stand for.
  std::unique_ptr<Model> unquantized(Model& quantized, const std::string& precision) const {
    auto model = open(precision, "none");
    int64_t matrices = 0;
    for (size_t i = 0; i < model->parameters().size(); ++i) {
      const auto* blocks = ops::block_weight(quantized.parameters().at(i).value());
      if (blocks) model->parameters().write(i, 0, blocks->numbers(at::kDouble).view(-1));
      matrices += blocks != nullptr;
    }
    // Four in a layer, and the output layer.
    EXPECT_EQ(matrices, 4 * model->spec().num_layers + 1);
    return model;
  }
};

TEST_P(QuantizedGolden, fp64_computes_with_the_numbers_of_the_blocks) {
  for (const char* quantize : {"q8_0", "q4_0"}) {
    const auto model = open("fp64", quantize), numbers = unquantized(*model, "fp64");
    testing::expect_close(all_logits(*model, tokens()), all_logits(*numbers, tokens()), 1e-12,
                          quantize);
  }
}

// Rounding to 1/127 of a block's largest adds noise of largest / 127 / sqrt(12). Of 32 normal
// values, as weights are, the largest is near 2.1 deviations: 0.5 % of the values. Of products of
// two such, as gated activations are, it is near 3.9: 0.9 %. Each matrix product has both, 1.03 %
// together; from the embedding to the logits there are at most 4 of every layer and the output
// layer's, and noises that do not know of each other add up as squares do.
TEST_P(QuantizedGolden, eight_bits_move_logits_by_their_rounding_noise) {
  const auto exact = open("fp64", "none"), model = open("fp32", "q8_0");
  const at::Tensor expected = all_logits(*exact, tokens());
  const double products = 4.0 * static_cast<double>(model->spec().num_layers) + 1;
  const double error = rms(all_logits(*model, tokens()) - expected) / rms(expected);
  EXPECT_LE(error, 0.0103 * std::sqrt(products));
  EXPECT_GT(error, 1e-5);  // it is quantised
}

// Against the numbers of the blocks, which weights of 4 bits have as well.
TEST_P(QuantizedGolden, the_kernel_adds_the_noise_of_its_inputs_alone) {
  for (const char* quantize : {"q8_0", "q4_0"}) {
    for (const char* precision : {"fp32", "bf16"}) {
      const auto model = open(precision, quantize), numbers = unquantized(*model, "fp64");
      const at::Tensor expected = all_logits(*numbers, tokens());
      const double products = 4.0 * static_cast<double>(model->spec().num_layers) + 1;
      // bf16 rounds to 2^-9 of a value; some ten such results are in a layer.
      const double own = precision == std::string("bf16") ? 0.005 : 0.0;
      EXPECT_LE(rms(all_logits(*model, tokens()) - expected) / rms(expected),
                (0.009 + own) * std::sqrt(products))
          << quantize << " " << precision;
    }
  }
}

// In one text of qwen3's the two best logits lie closer than the noise of 8 bits.
TEST_P(QuantizedGolden, greedy_text_is_that_of_the_numbers_of_the_blocks) {
  for (const char* quantize : {"q8_0", "q4_0"}) {
    const auto model = open(GetParam() == "qwen3" ? "fp64" : "fp32", quantize);
    const auto numbers = unquantized(*model, "fp64");
    const auto text = [&](Model& of) {
      const TokenIds all = tokens();
      return generate(of, std::span(all).first(8), {.max_new_tokens = 12, .ignore_eos = true})
          .tokens;
    };
    EXPECT_EQ(text(*model), text(*numbers)) << quantize;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, QuantizedGolden,
                         ::testing::Values("gpt2", "llama2", "mistral_window", "qwen3"));

TEST(Quantized, a_file_in_q8_0_keeps_its_blocks) {
  const testing::TemporaryFolder folder;
  convert::TargetOptions options;
  options.q8_0 = true;
  convert::write_gguf(*convert::open_model(testing::golden_model_folder("qwen3"), {}),
                      folder / "model.gguf", options, {});
  const auto of_file = open_quantized(folder / "model.gguf", "fp32", "q8_0");
  const auto of_folder = open_quantized(testing::golden_model_folder("qwen3"), "fp32", "q8_0");
  for (const char* name : {"self_attention.linear_qkv.weight", "mlp.linear_fc1.weight"}) {
    const auto numbers = [&](Model& model) {
      const auto& parameter = model.parameters().at(std::string("decoder.layers.1.") + name);
      return ops::block_weight(parameter.value())->numbers(at::kFloat);
    };
    EXPECT_TRUE(at::equal(numbers(*of_file), numbers(*of_folder))) << name;
  }
}

TEST(Quantized, decoders_of_every_kind_compute_with_the_numbers_of_the_blocks) {
  for (const auto& [name, spec] : testing::small_specs()) {
    SCOPED_TRACE(name);
    const auto blocks = Model::initialized(spec, at::kDouble, 7, "q8_0");
    const auto numbers = Model::initialized(spec, at::kDouble, 7);
    int64_t in_blocks = 0;
    for (size_t i = 0; i < numbers->parameters().size(); ++i) {
      const auto* matrix = ops::block_weight(blocks->parameters().at(i).value());
      if (!matrix) continue;
      numbers->parameters().write(i, 0, matrix->numbers(at::kDouble).view(-1));
      ++in_blocks;
    }
    EXPECT_GE(in_blocks, 3 * spec.num_layers);
    const TokenIds tokens = {5, 9, 33, 2, 41, 8, 60, 4, 4, 19, 50};
    testing::expect_close(all_logits(*blocks, tokens), all_logits(*numbers, tokens), 1e-12, name);

    // In a batch with others each text is what it is alone.
    const auto model = Model::initialized(spec, at::kFloat, 7, "q4_0");
    std::vector<Request> requests;
    for (int64_t i = 1; i < 6; ++i)
      requests.push_back({.prompt = TokenIds(tokens.begin(), tokens.begin() + 2 * i),
                          .max_new_tokens = 8,
                          .ignore_eos = true});
    Engine engine(*model, {.block_size = 8});
    const auto results = testing::run_all(engine, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      EXPECT_EQ(results[i].tokens, testing::alone(*model, requests[i])) << i;
  }
}

TEST(Quantized, says_what_it_cannot_do) {
  EXPECT_THROW(open_quantized(testing::golden_model_folder("qwen3"), "fp32", "q3_0"), ConfigError);
}

}  // namespace
}  // namespace qianli::infer
