#include "qianli/convert/adapter/trained.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "qianli/base/error.h"
#include "qianli/config/config.h"
#include "qianli/convert/adapter/target_parameters.h"
#include "qianli/convert/checkpoint/reader.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/model/hugging_face.h"
#include "qianli/model/stacked_experts.h"
#include "qianli/model/tuned_table.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

config::Config config_of(const formats::Manifest& manifest) {
  return config::from_text(manifest.state.config_yaml, formats::kManifestName, {});
}

// The parameters that were trained. Adapters have PEFT's names already.
Table trained_table(const model::ModelSpec& spec, const config::TuneConfig& tune) {
  Table table;
  for (auto& [entry, frozen, quantized] : model::tuned_table(spec, tune)) {
    if (frozen || entry.buffer) continue;
    if (!model::is_adapter(entry.name)) {
      for (model::ForeignPiece& piece : entry.hugging_face)
        piece.name = std::string(kAdapterPrefix) + piece.name;
    }
    entry.hugging_face_copies.clear();
    table.push_back(std::move(entry));
  }
  return table;
}

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// Their last names where these alone tell them, else all of it.
OrderedJson target_modules(const model::ModelSpec& spec, const config::TuneConfig& tune) {
  std::set<std::string> adapted, others, lasts;
  config::TuneConfig all{.method = "lora"};
  for (const auto& entry : model::parameter_table(spec)) {
    if (is_stacked(entry)) continue;
    for (const auto& [module, first, count] : model::adapted_rows(entry, tune))
      adapted.insert(module);
    for (const auto& [module, first, count] : model::adapted_rows(entry, all))
      others.insert(module);
  }
  for (const std::string& module : adapted) {
    lasts.insert(last_part(module));
    others.erase(module);
  }
  const bool ambiguous = std::ranges::any_of(
      others, [&](const std::string& module) { return lasts.contains(last_part(module)); });
  OrderedJson names = OrderedJson::array();
  for (const std::string& name : ambiguous ? adapted : lasts) names.push_back(name);
  return names;
}

std::vector<std::string> adapted_experts(const model::ModelSpec& spec,
                                         const config::TuneConfig& tune) {
  const Table table = model::parameter_table(spec);
  std::set<std::string> adapted;
  for (const auto& entry : table) {
    if (!is_stacked(entry)) continue;
    for (const auto& rows : model::adapted_rows(entry, tune)) adapted.insert(rows.module);
  }
  return target_parameters(table,
                           [&](const std::string& module) { return adapted.contains(module); });
}

OrderedJson peft_config(const model::ModelSpec& spec, const config::Config& config) {
  const config::TuneConfig& tune = config.tune;
  OrderedJson json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["base_model_name_or_path"] = config.model.source;
  json["r"] = tune.r;
  const bool whole = tune.alpha == static_cast<double>(static_cast<int64_t>(tune.alpha));
  json["lora_alpha"] =
      whole ? OrderedJson(static_cast<int64_t>(tune.alpha)) : OrderedJson(tune.alpha);
  json["lora_dropout"] = 0.0;
  json["use_rslora"] = tune.use_rslora;
  json["use_dora"] = tune.use_dora;
  json["target_modules"] = target_modules(spec, tune);
  if (const auto experts = adapted_experts(spec, tune); !experts.empty())
    json["target_parameters"] = experts;
  json["modules_to_save"] = OrderedJson();
  if (!tune.modules_to_save.empty()) {
    json["modules_to_save"] = OrderedJson::array();
    std::set<std::string> modules;
    for (const auto& entry : trained_table(spec, tune)) {
      if (model::is_adapter(entry.name)) continue;
      for (const auto& piece : entry.hugging_face)
        modules.insert(last_part(model::module_of(piece.name)));
    }
    for (const std::string& name : modules) json["modules_to_save"].push_back(name);
  }
  json["bias"] = "none";
  json["fan_in_fan_out"] = false;
  json["init_lora_weights"] = true;
  json["inference_mode"] = true;
  return json;
}

}  // namespace

bool is_partial(const formats::Manifest& manifest) {
  if (manifest.state.config_yaml.empty()) return false;  // converted
  return config_of(manifest).tune.freezes();
}

AdapterSource open_trained(const fs::path& step_folder, const formats::Manifest& manifest) {
  const config::Config config = config_of(manifest);
  auto model = std::make_shared<ModelSource>();
  model->kind = "Qianli checkpoint";
  model->path = step_folder;
  model->spec =
      model::from_hugging_face(manifest.model, (step_folder / formats::kManifestName).string());
  model->table = trained_table(model->spec, config.tune);
  std::vector<std::shared_ptr<const formats::TensorSource>> files = {
      formats::open_checkpoint_source(step_folder, manifest, {formats::TensorKind::kWeight})};
  model->reader = std::make_unique<ParameterReader>(model->table, own_tensors(model->table),
                                                    std::move(files), step_folder.string());
  auto tensors = hugging_face_tensors(model->table);
  check_cover(model->table, tensors, step_folder.string());
  return {
      .model = model, .tensors = std::move(tensors), .config = peft_config(model->spec, config)};
}

Adapter open_adapter(const fs::path& path, const Table& base) {
  if (fs::exists(path / "adapter_config.json")) return open_peft_adapter(path, base);
  const auto step = step_folder(path);
  if (!step) {
    throw CheckpointError(
        "adapter",
        fmt::format("expected an adapter, got '{}': {}", path.string(),
                    fs::exists(path) ? "it holds none" : "there is no such folder"),
        "give a folder with adapter_config.json, or a run or checkpoint of tune.method=lora");
  }
  const formats::Manifest manifest = formats::read_manifest(*step);
  if (!is_partial(manifest) || !config_of(manifest).tune.lora()) {
    throw CheckpointError(
        "adapter", fmt::format("expected an adapter, got a checkpoint of a whole model in {}",
                               step->string()));
  }
  return as_peft(open_trained(*step, manifest));
}

std::unique_ptr<ModelSource> as_trained(const AdapterTensors& adapter, const fs::path& path,
                                        const model::ModelSpec& spec,
                                        const config::TuneConfig& tune) {
  auto model = std::make_unique<ModelSource>();
  model->kind = "adapter";
  model->path = path;
  model->spec = spec;
  model->table = trained_table(spec, tune);
  model->reader = std::make_unique<ParameterReader>(
      model->table, hugging_face_tensors(model->table), std::vector{adapter.source}, path.string());
  return model;
}

std::unique_ptr<ModelSource> open_with_trained(const fs::path& step_folder,
                                               const formats::Manifest& manifest) {
  const fs::path folder = config_of(manifest).model.source;
  if (!is_model(folder)) {
    throw CheckpointError(
        "convert",
        fmt::format(
            "{} holds what was trained alone: expected the model it belongs to in {}, found "
            "none",
            step_folder.string(), folder.string()),
        "start where the training was started, so that the same path leads there");
  }
  auto model = with_adapter(open_model(folder), as_peft(open_trained(step_folder, manifest)));
  model->kind = "Qianli checkpoint of adapters";
  model->companions = step_folder;
  return model;
}

}  // namespace qianli::convert
