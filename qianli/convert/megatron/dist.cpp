#include "qianli/convert/megatron/dist.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/optimizer_states.h"
#include "qianli/convert/megatron/reader.h"
#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/formats/distributed_checkpoint.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/torch_file.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArguments = "common.pt";
constexpr const char* kEmbedding = "embedding.word_embeddings.weight";

// Norms stand under the name of the linear behind them, or their own.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kNorms = {{
    {"input_layernorm.", "self_attention.linear_qkv.layer_norm_"},
    {"pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_"},
    {"self_attention.q_layernorm.", "self_attention.linear_q_up_proj.layer_norm_"},
    {"self_attention.kv_layernorm.", "self_attention.linear_kv_up_proj.layer_norm_"},
}};

// A tensor of one rank that holds all, its name taken apart: "decoder.layers.", 3,
// "mlp.experts.experts.linear_fc1.weight", expert 5.
struct Name {
  std::string stack;  // empty: outside the layers, and `rest` is all of it
  int64_t layer = 0;
  std::string rest;
  int64_t expert = -1;
};

int64_t take_number(std::string& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  text.erase(0, static_cast<size_t>(end - text.data()) + 1);  // and the dot behind
  return number;
}

Name parse(std::string name) {
  Name parsed;
  name.erase(0, name.find('.') + 1);  // the chunk
  constexpr std::string_view kLayers = ".layers.", kLocal = "local_experts.";
  if (const size_t at = name.find(kLayers); at != name.npos) {
    parsed.stack = name.substr(0, at + kLayers.size());
    name.erase(0, parsed.stack.size());
    parsed.layer = take_number(name);
  }
  if (const size_t at = name.find(kLocal); at != name.npos) {
    std::string behind = name.substr(at + kLocal.size());
    parsed.expert = take_number(behind);
    name = name.substr(0, at) + "experts." + behind;
  }
  parsed.rest = std::move(name);
  return parsed;
}

// The ways in which `rest` may be spelled.
std::vector<std::string> spellings(const std::string& rest) {
  std::vector<std::string> all = {rest};
  for (const auto& [own, fused] : kNorms) {
    const size_t at = rest.find(own);
    if (at == rest.npos) continue;
    all.push_back(rest.substr(0, at) + std::string(fused) + rest.substr(at + own.size()));
  }
  return all;
}

class Joiner {
 public:
  Joiner(const model::ModelSpec& spec, const formats::TensorSource& source)
      : spec_(spec), source_(source) {}

  void add(const ForeignTensor& tensor) {
    const Name name = parse(tensor.name);
    for (const std::string& rest : spellings(name.rest)) {
      if (add(tensor, name, rest, /*stacked=*/true) || add(tensor, name, rest, /*stacked=*/false))
        return;
    }
    put(tensor, name, numbered(name, name.rest), /*stacked=*/false);
  }
  std::vector<ForeignTensor> all() && { return std::move(tensors_); }

 private:
  static std::string numbered(const Name& name, const std::string& rest) {
    return name.stack.empty() ? rest : fmt::format("{}{}.{}", name.stack, name.layer, rest);
  }

  bool add(const ForeignTensor& tensor, const Name& name, const std::string& rest, bool stacked) {
    if (stacked && name.stack.empty()) return false;
    const std::string stored = stacked ? name.stack + rest : numbered(name, rest);
    if (!source_.find(stored)) return false;
    put(tensor, name, stored, stacked);
    return true;
  }

  void put(const ForeignTensor& tensor, const Name& name, const std::string& stored, bool stacked) {
    const auto [place, added] = places_.try_emplace(stored, tensors_.size());
    int64_t elements = 1, index = 0;
    for (const int64_t size : tensor.shape) elements *= size;
    std::vector<int64_t> shape;
    if (stacked) {
      shape.push_back(name.stack == "decoder.layers." ? spec_.num_layers : spec_.mtp.num_layers);
      index = name.layer;
    }
    if (name.expert >= 0) {
      shape.push_back(spec_.moe->num_experts);
      index = index * spec_.moe->num_experts + name.expert;
    }
    shape.insert(shape.end(), tensor.shape.begin(), tensor.shape.end());
    if (added) tensors_.push_back({.name = stored, .shape = std::move(shape)});
    for (Part part : tensor.parts) {
      part.offset += index * elements;
      tensors_[place->second].parts.push_back(part);
    }
  }

  const model::ModelSpec& spec_;
  const formats::TensorSource& source_;
  std::vector<ForeignTensor> tensors_;
  std::unordered_map<std::string, size_t> places_;
};

bool is_no_weight(const std::string& name) {
  return name.starts_with("optimizer.") || name.starts_with("chained_") ||
         name.starts_with("rng_state") || name.starts_with("rerun_state");
}

// A model of `source`, whose tensors are those of `like`.
std::shared_ptr<const ModelSource> with_numbers_of(
    const ModelSource& like, const std::vector<ForeignTensor>& tensors,
    std::shared_ptr<const formats::TensorSource> source) {
  auto model = std::make_shared<ModelSource>();
  model->kind = like.kind;
  model->path = like.path;
  model->spec = like.spec;
  model->table = like.table;
  const std::string what = source->source();
  model->reader = std::make_unique<ParameterReader>(
      model->table, tensors, std::vector{std::move(source)}, what, is_no_weight);
  return model;
}

int64_t iteration_of(const formats::Value& common) {
  const formats::Value* iteration = common.find("iteration");
  return iteration ? iteration->as_int().value_or(0) : 0;
}

// Absent where no optimizer was saved. Throws CheckpointError where a parameter has no state.
std::optional<OptimizerStates> states_of(
    const ModelSource& model, const std::vector<ForeignTensor>& tensors,
    const std::shared_ptr<const formats::DistributedCheckpoint>& checkpoint,
    const std::shared_ptr<const formats::TensorSource>& source, const formats::Value& common,
    const StoredArguments& args) {
  const auto names = tensors_with_states(*checkpoint);
  if (names.empty()) return std::nullopt;
  for (const ForeignTensor& tensor : tensors) {
    if (names.contains(tensor.name)) continue;
    for (const Part& part : tensor.parts) {
      if (model.table[part.parameter].buffer) continue;
      throw CheckpointError("convert",
                            fmt::format("{}: {}: expected a state of the optimizer, as other "
                                        "tensors have, got none",
                                        source->source(), formats::shown_name(tensor.name)));
    }
  }
  const auto of_kind = [&](std::string_view kind) {
    return with_numbers_of(model, tensors, open_optimizer_states(checkpoint, source, kind));
  };
  const int64_t iteration = iteration_of(common);
  return OptimizerStates{
      .training = {.step = iteration,
                   .updates_done = iteration,
                   .consumed_samples = args.integer({"consumed_train_samples"}).value_or(0),
                   .seed = static_cast<uint64_t>(args.integer({"seed"}).value_or(0))},
      .weights = of_kind(kMasterWeights),
      .exp_avg = of_kind(kExpAvg),
      .exp_avg_sq = of_kind(kExpAvgSq)};
}

}  // namespace

std::vector<ForeignTensor> joined_layers(const std::vector<ForeignTensor>& tensors,
                                         const model::ModelSpec& spec,
                                         const formats::TensorSource& source) {
  Joiner joiner(spec, source);
  for (const ForeignTensor& tensor : tensors) joiner.add(tensor);
  return std::move(joiner).all();
}

bool is_megatron_dist(const fs::path& iteration) {
  return formats::DistributedCheckpoint::exists(iteration) && fs::exists(iteration / kArguments);
}

std::unique_ptr<ModelSource> open_megatron_dist(const fs::path& iteration,
                                                const SourceOptions& options) {
  const auto common = formats::TorchFile::open(iteration / kArguments);
  const StoredArguments args(common->root().find("args"), (iteration / kArguments).string());
  const auto checkpoint = formats::DistributedCheckpoint::open(iteration);
  const std::shared_ptr<const formats::TensorSource> source =
      formats::open_distributed_source(checkpoint);
  for (const formats::TensorSpec& tensor : source->tensors()) {
    if (!is_adapter_name(tensor.name)) continue;
    throw CheckpointError("convert",
                          fmt::format("{}: {}: expected adapters in a checkpoint of "
                                      "format torch, got torch_dist",
                                      source->source(), formats::shown_name(tensor.name)),
                          "save it with --ckpt-format torch");
  }
  auto model = std::make_unique<ModelSource>();
  model->kind = "Megatron checkpoint (torch_dist)";
  MegatronLayout layout;
  layout.padded_vocab_size = embedding_rows(*source, kEmbedding);
  model->spec = model_of(args, options, layout.padded_vocab_size);
  model->table = model::parameter_table(model->spec);
  if (fs::is_directory(options.config)) model->companions = options.config;
  model->path = iteration;
  const auto tensors =
      joined_layers(megatron_tensors(model->spec, model->table, layout), model->spec, *source);
  model->reader = std::make_unique<ParameterReader>(model->table, tensors, std::vector{source},
                                                    iteration.string(), is_no_weight);
  model->layout = layout;
  model->states = states_of(*model, tensors, checkpoint, source, common->root(), args);
  return model;
}

}  // namespace qianli::convert
