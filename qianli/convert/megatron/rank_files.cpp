#include "qianli/convert/megatron/rank_files.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "qianli/base/error.h"
#include "qianli/base/file.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Value;

constexpr const char* kTracker = "latest_checkpointed_iteration.txt";
constexpr const char* kRankFile = "model_optim_rng.pt";

[[noreturn]] void fail(const std::string& problem, const std::string& hint = {}) {
  throw CheckpointError("convert", problem, hint);
}

// How a checkpoint's tensors are called, told from one rank's names.
void read_names_of(const formats::TensorSource& source, const model::ModelSpec& spec,
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

// Megatron-LM core_v0.12, megatron/training/checkpointing.py, fix_query_key_value_ordering: what
// was saved before 2.0, or says nothing, has the fused rows in an older order, under legacy names.
void read_version(const RankFiles& files, const model::ModelSpec& spec, MegatronLayout& layout) {
  const Value* stored = files.first->root().find("checkpoint_version");
  const bool legacy = layout.names == MegatronNames::kLegacy;
  const double version = stored ? stored->as_float().value_or(-1.0) : legacy ? 0.0 : 3.0;
  const std::string got = fmt::format(
      "got {}", stored ? stored->shown() : std::string("none, which Megatron takes as 0"));
  const std::string& source = files.first->source();
  if (version == 2.0 || version == 3.0) return;
  if (version != 0.0 && version != 1.0) {
    fail(fmt::format("{}: checkpoint_version: expected 0, 1, 2 or 3, {}", source, got));
  }
  if (!legacy) {
    fail(fmt::format("{}: checkpoint_version: expected 2 or 3 with the names of Megatron-core, {}",
                     source, got),
         "Megatron-core never ordered the rows of linear_qkv as older versions did; where they are "
         "as they should be, save the file with version 3.0");
  }
  if (spec.num_query_groups != spec.num_attention_heads || spec.sliding_num_attention_heads ||
      spec.sliding_num_query_groups) {
    fail(
        fmt::format("{}: checkpoint_version: expected 2 or 3 where several queries share a key "
                    "({} heads, {} groups), {}",
                    source, spec.num_attention_heads, spec.num_query_groups, got));
  }
  layout.fused_rows = version == 0.0 ? FusedRows::kApart : FusedRows::kWoven;
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

fs::path first_file(const fs::path& folder) {
  for (const char* name : {"mp_rank_00", "mp_rank_00_000", "mp_rank_00_000_000"}) {
    if (fs::exists(folder / name / kRankFile)) return folder / name / kRankFile;
  }
  fail(fmt::format("expected {} of rank 0 in {}, found none", kRankFile, folder.string()));
}

}  // namespace

bool has_tracker(const fs::path& path) { return fs::exists(path / kTracker); }

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

StoredArguments RankFiles::arguments() const {
  return {told_args->root().find("args"), told_args->source()};
}

RankFiles open_rank_files(const fs::path& iteration) {
  if (!has_rank_folders(iteration)) {
    fail(fmt::format("expected mp_rank_* folders or .metadata in {}, found none",
                     iteration.string()));
  }
  RankFiles files{.folder = iteration,
                  .first = formats::TorchFile::open(first_file(iteration)),
                  .told_args = {},
                  .layout = {},
                  .sources = {}};
  const fs::path beside = iteration / kArgumentsBeside;
  const bool inside = files.first->root().find("args") || !fs::exists(beside);
  files.told_args = inside ? files.first : formats::TorchFile::open(beside);
  files.layout = layout_of(files.arguments());
  const auto ranks = megatron_ranks(files.layout);
  for (const MegatronRank& rank : ranks) {
    const fs::path path = iteration / rank_folder(files.layout, rank) / kRankFile;
    if (!fs::exists(path)) {
      fail(fmt::format("{}: expected a file of each of the {} ranks that the args of {} tell "
                       "(tensor_model_parallel_size {}, pipeline_model_parallel_size {}, "
                       "expert_model_parallel_size {}), found none",
                       path.string(), ranks.size(), files.told_args->source(), files.layout.tensor,
                       files.layout.pipeline, files.layout.expert),
           "the checkpoint is not whole: copy the folders of all ranks");
    }
    files.sources.push_back(weights_of(path));
  }
  return files;
}

void read_names(const RankFiles& files, const model::ModelSpec& spec, MegatronLayout& layout) {
  for (const auto& source : files.sources) read_names_of(*source, spec, layout);
  read_version(files, spec, layout);
}

}  // namespace qianli::convert
