#include "qianli/infer/model.h"

#include <fmt/core.h>

#include <chrono>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/base/progress.h"
#include "qianli/base/threads.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/device/device.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/parameter_table.h"
#include "qianli/ops/dispatch.h"

namespace qianli::infer {
namespace {

// Whether all matrices of a Hugging Face folder are bf16; only headers are read.
bool weights_are_bf16(const fs::path& folder) {
  if (checkpoint::is_checkpoint(folder) || !formats::SafetensorsFolder::exists(folder))
    return false;
  const auto weights = formats::SafetensorsFolder::open(folder);
  bool found = false;
  for (const formats::TensorEntry* entry : weights.entries()) {
    if (entry->shape.size() < 2) continue;
    if (entry->dtype != formats::Dtype::kBF16) return false;
    found = true;
  }
  return found;
}

device::ComputeType compute_type(const fs::path& folder, const OpenOptions& options,
                                 at::Device device) {
  if (options.precision == "auto" && !weights_are_bf16(folder)) {
    return {at::kFloat, "as the weights are not bf16"};
  }
  device::ComputeType type = device::choose_compute_type(options.precision, device);
  if (options.precision != "auto") type.reason = "as asked for";
  return type;
}

void check_folder(const fs::path& folder) {
  if (fs::is_directory(folder)) return;
  throw ConfigError(
      "model",
      fmt::format("expected a model folder, got '{}': {}", folder.string(),
                  fs::exists(folder) ? "it is not a folder" : "there is no such folder"),
      "give a folder with config.json and model.safetensors, or a checkpoint's");
}

// A run's folder, or its checkpoints folder, stands for its last checkpoint.
fs::path resolve(const fs::path& folder) {
  if (fs::exists(folder / "config.json")) return folder;
  if (const auto last = checkpoint::latest(folder / "checkpoints")) return *last;
  return checkpoint::latest(folder).value_or(folder);
}

void check_memory(const model::ModelSpec& spec, const device::ComputeType& type,
                  at::Device device) {
  if (!device.is_cpu()) return;
  const auto bytes = static_cast<double>(model::parameter_count(spec)) *
                     static_cast<double>(c10::elementSize(type.dtype));
  const uint64_t available = available_memory_bytes();
  if (bytes <= static_cast<double>(available)) return;
  throw MemoryError(
      "model",
      fmt::format("expected weights of at most {}, got {:.1f} GB in {}", human_bytes(available),
                  bytes / 1e9, device::dtype_name(type.dtype)),
      "use a smaller precision or a machine with more memory");
}

}  // namespace

std::unique_ptr<Model> Model::open(const fs::path& given, const OpenOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  check_folder(given);
  const fs::path folder = resolve(given);
  model::ModelSpec spec = model::load_spec(folder);
  device::start();
  const at::Device device = device::choose(options.device);
  ops::load_cuda_kernels();
  const device::ComputeType type = compute_type(folder, options, device);
  check_memory(spec, type, device);
  std::unique_ptr<Model> model(new Model(folder, std::move(spec), type.dtype, device));
  model->load_tokenizer();
  model->generation_ = load_generation_config(folder);
  auto& eos = model->generation_.eos_token_ids;
  if (eos.empty()) eos = model->spec_.eos_token_ids;
  if (eos.empty() && model->tokenizer_ && model->tokenizer_->eos_id()) {
    eos = {*model->tokenizer_->eos_id()};
  }
  checkpoint::load_weights(folder, model->parameters_);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  model->summary_ = fmt::format(
      "{} parameters in {} ({}) on {}, opened in {}",
      human_count(static_cast<double>(model::parameter_count(model->spec_))),
      device::dtype_name(type.dtype), type.reason, device.str(), human_seconds(seconds));
  return model;
}

Model::Model(fs::path folder, model::ModelSpec spec, at::ScalarType dtype, at::Device device)
    : folder_(std::move(folder)),
      spec_(std::move(spec)),
      parameters_(spec_, dtype, device, /*master=*/false),
      decoder_(spec_, parameters_) {}

void Model::load_tokenizer() {
  if (!text::Tokenizer::is_in(folder_)) return;
  tokenizer_ = text::Tokenizer::load(folder_);
  if (tokenizer_->vocab_size() <= spec_.vocab_size) return;
  throw DataError("tokenizer",
                  fmt::format("expected at most {} ids as {} has rows, got {} in its tokenizer",
                              spec_.vocab_size, (folder_ / "config.json").string(),
                              tokenizer_->vocab_size()),
                  "the tokenizer belongs to another model");
}

const std::shared_ptr<const text::Tokenizer>& Model::tokenizer() const {
  if (!tokenizer_) {
    throw DataError("tokenizer",
                    fmt::format("expected a tokenizer in {}, found none", folder_.string()),
                    "copy the model's tokenizer files into its folder");
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
