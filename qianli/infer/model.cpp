#include "qianli/infer/model.h"

#include <fmt/core.h>

#include <chrono>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/progress.h"
#include "qianli/base/threads.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/device/device.h"
#include "qianli/model/tuned_table.h"
#include "qianli/ops/dispatch.h"

namespace qianli::infer {
namespace {

// Whether all matrices are bf16, or stored in fewer bits.
bool weights_are_bf16(const convert::ModelSource& source) {
  for (size_t i = 0; i < source.table.size(); ++i) {
    if (source.table[i].shape.size() < 2) continue;
    if (source.reader->natural_dtype(i) != formats::Dtype::kBF16) return false;
  }
  return true;
}

device::ComputeType compute_type(const convert::ModelSource& source, const OpenOptions& options,
                                 at::Device device) {
  if (options.precision == "auto" && !weights_are_bf16(source)) {
    return {at::kFloat, "as the weights are not bf16"};
  }
  device::ComputeType type = device::choose_compute_type(options.precision, device);
  if (options.precision != "auto") type.reason = "as asked for";
  return type;
}

void check_is_model(const fs::path& path) {
  if (convert::is_model(path)) return;
  throw ConfigError(
      "model",
      fmt::format("expected a model, got '{}': {}", path.string(),
                  fs::exists(path) ? "it holds none" : "there is no such folder"),
      "give a folder with config.json and model.safetensors, a checkpoint's, or a GGUF file");
}

// What the weights will take.
double weight_bytes(const model::ModelSpec& spec, at::ScalarType dtype,
                    const config::TuneConfig& kept) {
  double bytes = 0;
  for (const model::TunedEntry& weight : model::tuned_table(spec, kept)) {
    const bool few = weight.entry.layer >= 0 && kept.quantization == "q4_0";
    const double each =
        !weight.quantized ? static_cast<double>(c10::elementSize(dtype)) : (few ? 4.5 : 8.5) / 8;
    bytes += static_cast<double>(weight.entry.elements()) * each;
  }
  return bytes;
}

void check_memory(const model::ModelSpec& spec, const device::ComputeType& type, at::Device device,
                  const config::TuneConfig& kept) {
  if (!device.is_cpu()) return;
  const double bytes = weight_bytes(spec, type.dtype, kept);
  const uint64_t available = available_memory_bytes();
  if (bytes <= static_cast<double>(available)) return;
  throw MemoryError(
      "model",
      fmt::format("expected weights of at most {}, got {:.1f} GB in {}", human_bytes(available),
                  bytes / 1e9, device::dtype_name(type.dtype)),
      "use a smaller precision, --quantize or a machine with more memory");
}

config::TuneConfig kept_as(const std::string& quantize, at::Device device) {
  if (quantize == "none") return {};
  if (quantize != "q8_0" && quantize != "q4_0") {
    throw ConfigError("model",
                      fmt::format("expected to quantize to q8_0 or q4_0, got '{}'", quantize));
  }
  if (!device.is_cpu()) {
    throw ConfigError("model",
                      fmt::format("expected the CPU with {}, got {}", quantize, device.str()),
                      "use --device cpu, or leave --quantize out");
  }
  return {.quantization = quantize};
}

std::string kept_text(const nn::ParameterSet& parameters) {
  const std::string& code = parameters.tune().quantization;
  if (code == "none") return "";
  return fmt::format(", matrices in {}: {}", code,
                     human_bytes(static_cast<uint64_t>(parameters.kept_bytes())));
}

}  // namespace

std::unique_ptr<Model> Model::open(const fs::path& path, const OpenOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  check_is_model(path);
  const auto source = convert::open_model(path, options.source);
  device::start();
  const at::Device device = device::choose(options.device);
  ops::load_cuda_kernels();
  const device::ComputeType type = compute_type(*source, options, device);
  const config::TuneConfig kept = kept_as(options.quantize, device);
  check_memory(source->spec, type, device, kept);
  std::unique_ptr<Model> model(new Model(path, source->spec, type.dtype, device, kept));
  const AtomicFolder scratch(fs::temp_directory_path() / "qianli-model", FileRole::kData);
  model->load_companions(convert::companion_folder(*source, scratch.path()));
  auto& eos = model->generation_.eos_token_ids;
  if (eos.empty()) eos = model->spec_.eos_token_ids;
  if (eos.empty() && model->tokenizer_ && model->tokenizer_->eos_id()) {
    eos = {*model->tokenizer_->eos_id()};
  }
  checkpoint::load_weights(*source, model->parameters_);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  model->summary_ =
      fmt::format("{} parameters in {} ({}){} on {}, opened in {}",
                  human_count(static_cast<double>(model::parameter_count(model->spec_))),
                  device::dtype_name(type.dtype), type.reason, kept_text(model->parameters_),
                  device.str(), human_seconds(seconds));
  return model;
}

std::unique_ptr<Model> Model::initialized(const model::ModelSpec& spec, at::ScalarType dtype,
                                          uint64_t seed, const std::string& quantize) {
  device::start();
  std::unique_ptr<Model> model(new Model({}, spec, dtype, at::kCPU, kept_as(quantize, at::kCPU)));
  model->generation_.eos_token_ids = spec.eos_token_ids;
  model->parameters_.initialize(seed);
  return model;
}

Model::Model(fs::path path, model::ModelSpec spec, at::ScalarType dtype, at::Device device,
             const config::TuneConfig& kept)
    : path_(std::move(path)),
      spec_(std::move(spec)),
      parameters_(spec_, dtype, device, /*master=*/false, {}, {}, &kept),
      decoder_(spec_, parameters_) {}

void Model::load_companions(const fs::path& folder) {
  if (folder.empty()) return;
  generation_ = load_generation_config(folder);
  chat_templates_ = text::chat::ModelTemplateFiles::read(folder);
  if (!text::Tokenizer::is_in(folder)) return;
  tokenizer_ = text::Tokenizer::load(folder);
  if (tokenizer_->vocab_size() <= spec_.vocab_size) return;
  throw DataError("tokenizer",
                  fmt::format("expected at most {} ids as {} has rows, got {} in its tokenizer",
                              spec_.vocab_size, path_.string(), tokenizer_->vocab_size()),
                  "the tokenizer belongs to another model");
}

const std::shared_ptr<const text::Tokenizer>& Model::tokenizer() const {
  if (!tokenizer_) {
    throw DataError(
        "tokenizer", fmt::format("expected a tokenizer in {}, found none", path_.string()),
        fs::is_directory(path_) ? "copy the model's tokenizer files into its folder"
                                : "convert it with --to hf and copy the tokenizer's files there");
  }
  return tokenizer_;
}

int64_t Model::context_limit() const {
  const auto trained = static_cast<double>(spec_.max_position_embeddings);
  const bool dynamic = spec_.rope.scaling.kind == model::RopeScalingKind::kDynamic;
  return static_cast<int64_t>(dynamic ? trained * spec_.rope.scaling.factor : trained);
}

int64_t Model::position_limit() const {
  return spec_.position == model::PositionKind::kLearned ? spec_.max_position_embeddings
                                                         : std::numeric_limits<int64_t>::max();
}

}  // namespace qianli::infer
