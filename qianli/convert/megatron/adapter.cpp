#include "qianli/convert/megatron/adapter.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/adapter_layers.h"
#include "qianli/convert/megatron/adapter_origin.h"
#include "qianli/convert/megatron/adapter_tables.h"
#include "qianli/convert/megatron/tensors.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

OrderedJson peft_config(const AdapterTables& adapter, int64_t rank, double alpha) {
  OrderedJson config;
  config["peft_type"] = "LORA";
  config["task_type"] = "CAUSAL_LM";
  config["base_model_name_or_path"] = nullptr;
  config["r"] = rank;
  const bool whole = alpha == std::floor(alpha) && std::abs(alpha) < 1e9;
  config["lora_alpha"] = whole ? OrderedJson(static_cast<int64_t>(alpha)) : OrderedJson(alpha);
  config["lora_dropout"] = 0.0;
  config["target_modules"] = adapter.target_modules;
  config["bias"] = "none";
  config["fan_in_fan_out"] = adapter.any_transposed;
  config["inference_mode"] = true;
  config["init_lora_weights"] = true;
  config["modules_to_save"] = nullptr;
  return config;
}

[[noreturn]] void refuse_none(const std::string& what) {
  throw CheckpointError(
      "convert", fmt::format("{}: expected lora_A and lora_B of linear layers, found none", what));
}

int64_t common_rank(const std::vector<AdaptedLayer>& layers, const AdapterScale& scale,
                    const std::string& what) {
  if (layers.empty()) refuse_none(what);
  const int64_t rank = scale.rank.value_or(layers.front().rank);
  for (const AdaptedLayer& layer : layers) {
    if (layer.rank == rank) continue;
    throw CheckpointError(
        "convert",
        fmt::format("{}: {}: expected rank {} {}, got {}", what, layer.name, rank,
                    scale.rank ? "as args.lora_r says" : "as in other layers", layer.rank));
  }
  return rank;
}

AdapterScale scale_of(const RankFiles& files, const SourceOptions& options) {
  const StoredArguments args = files.arguments();
  const auto stored = args.number({"lora_alpha"});
  if (stored && options.lora_alpha && *stored != *options.lora_alpha) {
    throw ConfigError("convert",
                      fmt::format("{}: expected --lora-alpha {} as args.lora_alpha says, "
                                  "got {}",
                                  args.source(), *stored, *options.lora_alpha));
  }
  if (!stored && !options.lora_alpha) {
    throw ConfigError(
        "convert",
        fmt::format("{}: args do not say lora_alpha: the adapter's scale is not known",
                    args.source()),
        "give --lora-alpha, as in training");
  }
  const double alpha = stored ? *stored : *options.lora_alpha;
  if (!std::isfinite(alpha)) args.fail("lora_alpha", "a finite number");
  return {.rank = args.integer({"lora_r"}), .alpha = alpha};
}

}  // namespace

bool is_adapter_name(const std::string& name) {
  if (name.ends_with("._extra_state")) return false;
  return std::ranges::any_of(
      std::initializer_list<const char*>{".lora_", ".modules_to_save.", ".original_module."},
      [&](const char* part) { return name.find(part) != name.npos; });
}

bool holds_adapter(const RankFiles& files) {
  return std::ranges::any_of(files.sources, [](const auto& source) {
    return std::ranges::any_of(source->tensors(), [](const formats::TensorSpec& tensor) {
      return is_adapter_name(tensor.name);
    });
  });
}

AdapterSource megatron_adapter(const Table& table, const std::vector<ForeignTensor>& tensors,
                               const std::vector<MegatronRank>& ranks, RankSources files,
                               const AdapterScale& scale, const fs::path& path) {
  const auto layers = adapted_layers(tensors, ranks, files);
  const int64_t rank = common_rank(layers, scale, path.string());
  AdapterTables tables = adapter_tables(table, layers, path.string());
  OrderedJson config = peft_config(tables, rank, scale.alpha);
  AdapterSource adapter{.model = std::make_shared<ModelSource>(),
                        .tensors = std::move(tables.tensors),
                        .config = std::move(config)};
  adapter.model->kind = "Megatron adapter";
  adapter.model->path = path;
  adapter.model->table = std::move(tables.table);
  adapter.model->reader = std::make_unique<ParameterReader>(
      adapter.model->table, std::move(tables.stored), std::move(files), path.string(),
      [](const std::string& name) { return !is_adapter_name(name); });
  if (const auto copies = adapter.model->reader->differing_copies(); !copies.empty()) {
    throw CheckpointError(
        "convert",
        fmt::format("expected it alike on all ranks, got another in {}", copies.front()));
  }
  return adapter;
}

AdapterSource read_megatron_adapter(const RankFiles& files, const model::ModelSpec& spec,
                                    const SourceOptions& options) {
  if (!holds_adapter(files)) refuse_none(files.folder.string());
  MegatronLayout layout = files.layout;
  const int64_t padded = files.arguments().integer({"padded_vocab_size"}).value_or(0);
  if (padded >= spec.vocab_size) layout.padded_vocab_size = padded;
  read_names(files, spec, layout);
  const Table table = model::parameter_table(spec);
  AdapterSource adapter =
      megatron_adapter(table, megatron_tensors(spec, table, layout), megatron_ranks(layout),
                       files.sources, scale_of(files, options), files.folder);
  adapter.model->spec = spec;
  adapter.model->lora_alpha = options.lora_alpha;
  const StoredArguments args = files.arguments();
  const std::string origin = args.text(kAdapterOrigin);
  return origin.empty() ? adapter
                        : as_it_was(std::move(adapter), origin,
                                    fmt::format("{}: args.{}", args.source(), kAdapterOrigin));
}

}  // namespace qianli::convert
