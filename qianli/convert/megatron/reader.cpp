#include "qianli/convert/megatron/reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/convert/megatron/dist.h"
#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/convert/megatron/tensors.h"
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

// Of the whole embedding, from the first rank's part.
int64_t padded_rows(const formats::TensorSource& first, const MegatronLayout& layout) {
  for (const formats::TensorSpec& tensor : first.tensors()) {
    if (tensor.name.ends_with("word_embeddings.weight"))
      return embedding_rows(first, tensor.name) * layout.tensor;
  }
  fail(fmt::format("{}: expected word_embeddings.weight on the first stage, found none",
                   first.source()));
}

}  // namespace

int64_t embedding_rows(const formats::TensorSource& source, const std::string& name) {
  const formats::TensorSpec& tensor = source.at(name);
  if (tensor.shape.size() == 2 && tensor.shape[0] <= INT32_MAX) return tensor.shape[0];
  fail(fmt::format("{}: expected {} of two axes, got {}", source.source(), name,
                   formats::shape_text(tensor.shape)));
}

model::ModelSpec model_of(const StoredArguments& args, const SourceOptions& options,
                          int64_t embedding_rows) {
  if (!options.config.empty()) return spec_of_config(options);
  if (const Value* config = args.find("qianli_config"); config && config->as_text()) {
    const std::string source = args.source() + ": args.qianli_config";
    return model::from_hugging_face(parse_json(*config->as_text(), source, FileRole::kCheckpoint),
                                    source);
  }
  return spec_of_arguments(args, embedding_rows);
}

bool is_megatron(const fs::path& path) {
  return fs::exists(path / kTracker) || has_rank_folders(path) || is_megatron_dist(path);
}

std::unique_ptr<ModelSource> open_megatron(const fs::path& path, const SourceOptions& options) {
  const fs::path folder = iteration_folder(path);
  if (is_megatron_dist(folder)) return open_megatron_dist(folder, options);
  if (!has_rank_folders(folder)) {
    fail(fmt::format("expected mp_rank_* folders or .metadata in {}, found none", folder.string()));
  }
  fs::path first;
  for (const char* name : {"mp_rank_00", "mp_rank_00_000", "mp_rank_00_000_000"}) {
    if (first.empty() && fs::exists(folder / name / kRankFile)) first = folder / name / kRankFile;
  }
  if (first.empty())
    fail(fmt::format("expected {} of rank 0 in {}, found none", kRankFile, folder.string()));
  const auto file = formats::TorchFile::open(first);
  const StoredArguments args(file->root().find("args"), first.string());
  auto model = std::make_unique<ModelSource>();
  model->kind = "Megatron checkpoint";
  MegatronLayout layout = layout_of(args);
  layout.padded_vocab_size = padded_rows(*weights_of(first), layout);
  model->spec = model_of(args, options, layout.padded_vocab_size);
  model->table = model::parameter_table(model->spec);
  if (!options.config.empty() && fs::is_directory(options.config))
    model->companions = options.config;
  std::vector<std::shared_ptr<const formats::TensorSource>> files;
  for (const MegatronRank& rank : megatron_ranks(layout)) {
    files.push_back(weights_of(folder / rank_folder(layout, rank) / kRankFile));
  }
  for (const auto& source : files) read_names(*source, model->spec, layout);
  model->reader = std::make_unique<ParameterReader>(
      model->table, megatron_tensors(model->spec, model->table, layout), std::move(files),
      folder.string());
  model->layout = layout;
  return model;
}

}  // namespace qianli::convert
