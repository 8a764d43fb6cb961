#include "qianli/convert/megatron_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/convert/megatron.h"
#include "qianli/formats/torch_file.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Value;

constexpr const char* kTracker = "latest_checkpointed_iteration.txt";
constexpr const char* kRankFile = "model_optim_rng.pt";

[[noreturn]] void fail(const std::string& problem, const std::string& hint = {}) {
  throw CheckpointError("convert", problem, hint);
}

bool has_rank_folders(const fs::path& folder) {
  if (!fs::is_directory(folder)) return false;
  return std::ranges::any_of(fs::directory_iterator(folder), [](const fs::directory_entry& entry) {
    return entry.path().filename().string().starts_with("mp_rank_");
  });
}

fs::path iteration_folder(const fs::path& path) {
  if (!fs::exists(path / kTracker)) return path;
  std::string text = read_file(path / kTracker, FileRole::kCheckpoint, 64);
  std::erase_if(text, [](unsigned char c) { return std::isspace(c) != 0; });
  if (text == "release") return path / "release";
  int64_t iteration = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), iteration);
  if (error != std::errc() || end != text.data() + text.size() || iteration < 0) {
    fail(fmt::format("{}: expected a number or release, got \"{}\"", (path / kTracker).string(),
                     text));
  }
  return path / fmt::format("iter_{:07}", iteration);
}

// Arguments of the run that wrote the checkpoint: a namespace, or a dictionary.
class Arguments {
 public:
  explicit Arguments(const Value* args) : args_(args) {}
  const Value* find(std::string_view key) const { return args_ ? args_->find(key) : nullptr; }
  std::optional<int64_t> integer(std::string_view key) const {
    const Value* value = find(key);
    return value ? value->as_int() : std::nullopt;
  }
  bool flag(std::string_view key) const {
    const Value* value = find(key);
    return value && value->as_bool().value_or(false);
  }
  // A list, or its text "3,4,5".
  std::vector<int64_t> integers(std::string_view key) const;

 private:
  const Value* args_;
};

std::vector<int64_t> Arguments::integers(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return {};
  if (const auto list = value->as_integers()) return *list;
  const std::string* text = value->as_text();
  if (!text) return {};
  std::vector<int64_t> numbers;
  for (const char* at = text->data(); at < text->data() + text->size();) {
    int64_t number = 0;
    const auto [end, error] = std::from_chars(at, text->data() + text->size(), number);
    if (error != std::errc())
      fail(fmt::format("args.{}: expected numbers with commas, got \"{}\"", key, *text));
    numbers.push_back(number);
    at = end + 1;
  }
  return numbers;
}

model::ModelSpec spec_of(const Arguments& args, const SourceOptions& options,
                         const fs::path& path) {
  if (!options.config.empty()) return spec_of_config(options);
  if (const Value* config = args.find("qianli_config"); config && config->as_text()) {
    const std::string source = path.string() + ": args.qianli_config";
    return model::from_hugging_face(parse_json(*config->as_text(), source, FileRole::kCheckpoint),
                                    source);
  }
  fail(fmt::format("{} does not say which model it holds", path.string()),
       "give --config, a folder with the model's config.json or a preset");
}

// How a checkpoint's tensors are called, told from one rank's names.
void read_names(const formats::TensorSource& source, const model::ModelSpec& spec,
                MegatronLayout& layout) {
  const auto any = [&](auto&& holds) {
    return std::ranges::any_of(source.tensors(),
                               [&](const formats::TensorSpec& t) { return holds(t.name); });
  };
  const auto contains = [&](std::string_view part) {
    return any([&](const std::string& name) { return name.find(part) != std::string::npos; });
  };
  if (contains(".language_model.")) {
    layout.names = MegatronNames::kLegacy;
  } else if (contains(".post_attn_norm.") || contains("mtp.final_layernorms.") ||
             (spec.latent_attention && contains(".linear_qkv.")) ||
             contains(".self_attention.q_proj.") || spec.key_value_share_factor > 1 ||
             own_layers(spec) > 1) {
    layout.names = MegatronNames::kMindSpeed;
  }
  layout.fused_norms = contains("layer_norm_weight");
  layout.split_latent_projections = contains(".linear_qk_nope.");
  if (contains(".experts.weight1")) layout.experts = ExpertStorage::kGrouped;
  if (contains(".experts.linear_fc1.weight0")) layout.experts = ExpertStorage::kPerWeight;
}

MegatronLayout layout_of(const Arguments& args) {
  MegatronLayout layout;
  layout.tensor = args.integer("tensor_model_parallel_size").value_or(1);
  layout.pipeline = args.integer("pipeline_model_parallel_size").value_or(1);
  layout.expert = args.integer("expert_model_parallel_size").value_or(1);
  layout.expert_tensor = args.integer("expert_tensor_parallel_size").value_or(0);
  layout.layers_per_virtual_stage =
      args.integer("num_layers_per_virtual_pipeline_stage").value_or(0);
  layout.layers_per_stage = args.integers("num_layer_list");
  layout.noop_layers = args.integers("noop_layers");
  layout.tensor_extends_expert = args.flag("moe_tp_extend_ep");
  const Value* schedule = args.find("schedules_method");
  layout.dual_pipe_v = schedule && schedule->as_text() && *schedule->as_text() == "dualpipev";
  return layout;
}

// The part of a rank's file that holds weights.
std::shared_ptr<const formats::TensorSource> weights_of(const fs::path& path) {
  const auto file = formats::TorchFile::open(path);
  formats::Entries models;
  if (const formats::Entries* entries = file->root().entries()) {
    for (const auto& [key, value] : *entries) {
      if (key.as_text() && key.as_text()->starts_with("model")) models.emplace_back(key, value);
    }
  }
  if (models.empty())
    fail(fmt::format("{}: expected weights under `model`, found none", path.string()));
  return formats::open_torch_source(file, Value::dict(std::move(models)));
}

int64_t padded_rows(const formats::TensorSource& first, const MegatronLayout& layout) {
  for (const formats::TensorSpec& tensor : first.tensors()) {
    if (tensor.name.ends_with("word_embeddings.weight")) return tensor.shape.at(0) * layout.tensor;
  }
  fail(fmt::format("{}: expected word_embeddings.weight on the first stage, found none",
                   first.source()));
}

}  // namespace

bool is_megatron(const fs::path& path) {
  return fs::exists(path / kTracker) || has_rank_folders(path);
}

std::unique_ptr<ModelSource> open_megatron(const fs::path& path, const SourceOptions& options) {
  const fs::path folder = iteration_folder(path);
  if (!has_rank_folders(folder)) {
    fail(fmt::format("expected mp_rank_* folders in {}, found none", folder.string()));
  }
  fs::path first;
  for (const char* name : {"mp_rank_00", "mp_rank_00_000", "mp_rank_00_000_000"}) {
    if (first.empty() && fs::exists(folder / name / kRankFile)) first = folder / name / kRankFile;
  }
  if (first.empty())
    fail(fmt::format("expected {} of rank 0 in {}, found none", kRankFile, folder.string()));
  const auto file = formats::TorchFile::open(first);
  const Arguments args(file->root().find("args"));
  auto model = std::make_unique<ModelSource>();
  model->kind = "Megatron checkpoint";
  model->spec = spec_of(args, options, first);
  model->table = model::parameter_table(model->spec);
  if (!options.config.empty() && fs::is_directory(options.config))
    model->companions = options.config;
  MegatronLayout layout = layout_of(args);
  std::vector<std::shared_ptr<const formats::TensorSource>> files;
  for (const MegatronRank& rank : megatron_ranks(layout)) {
    files.push_back(weights_of(folder / rank_folder(layout, rank) / kRankFile));
  }
  for (const auto& source : files) read_names(*source, model->spec, layout);
  layout.padded_vocab_size = padded_rows(*files.front(), layout);
  model->reader = std::make_unique<ParameterReader>(
      model->table, megatron_tensors(model->spec, model->table, layout), std::move(files),
      folder.string());
  model->layout = layout;
  return model;
}

}  // namespace qianli::convert
