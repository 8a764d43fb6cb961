// An opened MODEL folder, ready to compute: weights, decoder, tokenizer, device and dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "qianli/config/tune_section.h"
#include "qianli/convert/model_source.h"
#include "qianli/infer/generation_config.h"
#include "qianli/model/spec.h"
#include "qianli/nn/decoder.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/text/chat/model_template.h"
#include "qianli/text/tokenizer.h"

namespace qianli::infer {

struct OpenOptions {
  // auto, fp32, bf16, fp64. auto is bf16 where the folder's weights are bf16 and the device
  // multiplies bf16 well, else fp32.
  std::string precision = "auto";
  std::string device = "auto";  // auto, cpu, cuda
  // none; q8_0, q4_0: the layers' matrices and the output layer's are kept and computed with in
  // blocks of few bits (ops/block_weight.h), on the CPU. `precision` is then of all else.
  std::string quantize = "none";
  convert::SourceOptions source = {};  // what the weights are of, and an adapter to merge
};

class Model {
 public:
  // Any model that convert::open_model knows. Throws ConfigError (nothing there, config.json),
  // CheckpointError (weights), DataError (tokenizer), MemoryError (the weights do not fit).
  static std::unique_ptr<Model> open(const std::filesystem::path& path, const OpenOptions& options);
  // Fresh weights, as training begins with them; no tokenizer.
  static std::unique_ptr<Model> initialized(const model::ModelSpec& spec, at::ScalarType dtype,
                                            uint64_t seed, const std::string& quantize = "none");
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const model::ModelSpec& spec() const { return spec_; }
  nn::ParameterSet& parameters() { return parameters_; }
  nn::Decoder& decoder() { return decoder_; }
  at::Device device() const { return parameters_.flat().device(); }
  at::ScalarType dtype() const { return parameters_.flat().scalar_type(); }

  bool has_tokenizer() const { return tokenizer_ != nullptr; }
  // Throws DataError where the folder has none.
  const std::shared_ptr<const text::Tokenizer>& tokenizer() const;
  // Empty where the folder brings none.
  const text::chat::ModelTemplateFiles& chat_templates() const { return chat_templates_; }
  const SamplingOptions& default_sampling() const { return generation_.sampling; }
  // Tokens that end a text: generation_config.json's, else config.json's, else the tokenizer's.
  const std::vector<int64_t>& eos_ids() const { return generation_.eos_token_ids; }
  // The most tokens a generated sequence may have: max_position_embeddings, times the factor of
  // dynamic rotary scaling.
  int64_t context_limit() const;
  // The most tokens that have positions at all: the table's rows of a model with learned positions.
  int64_t position_limit() const;

  // "135 M parameters in fp32 (…) on cpu in 0.41 s".
  const std::string& summary() const { return summary_; }

 private:
  Model(std::filesystem::path path, model::ModelSpec spec, at::ScalarType dtype, at::Device device,
        const config::TuneConfig& kept = {});
  // Generation settings, chat templates, and the tokenizer if there is one. Empty: no folder.
  void load_companions(const std::filesystem::path& folder);

  std::filesystem::path path_;
  model::ModelSpec spec_;
  nn::ParameterSet parameters_;
  nn::Decoder decoder_;
  GenerationConfig generation_;
  text::chat::ModelTemplateFiles chat_templates_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::string summary_;
};

}  // namespace qianli::infer
