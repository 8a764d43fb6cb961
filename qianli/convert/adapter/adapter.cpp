#include "qianli/convert/adapter/adapter.h"

#include <set>

#include "qianli/convert/adapter/merged_source.h"
#include "qianli/convert/adapter/target_parameters.h"
#include "qianli/convert/assembled_source.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/hugging_face/folder_names.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/convert/produce.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/stacked_experts.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

// Names of matrices that are stored [in, out] (GPT-2's Conv1D).
std::set<std::string> transposed_names(const Table& table) {
  std::set<std::string> names;
  for (const model::ParameterEntry& entry : table) {
    for (const model::ForeignPiece& piece : entry.hugging_face) {
      if (piece.transposed) names.insert(piece.name);
    }
  }
  return names;
}

// Every expert's matrices have names, as adapters of them have.
Table with_experts_apart(Table table) {
  for (model::ParameterEntry& entry : table) {
    if (is_stacked(entry)) entry.hugging_face = model::module_pieces(entry);
  }
  return table;
}

// PEFT's tensors as its folders have them.
std::vector<ForeignTensor> tensors_of_folder(const AdapterSource& adapter) {
  if (!adapter.config.contains("target_parameters")) return adapter.tensors;
  return experts_stacked(adapter.tensors, model::parameter_table(adapter.model->spec));
}

// Without those that only repeat others: an adapter of one would be lost.
std::vector<ForeignTensor> originals(std::vector<ForeignTensor> tensors) {
  std::erase_if(tensors, [](const ForeignTensor& tensor) { return tensor.copy; });
  return tensors;
}

}  // namespace

Adapter open_peft_adapter(const fs::path& folder, const Table& base) {
  AdapterConfig config = read_adapter_config(folder);
  auto tensors = adapter_tensors(experts_apart(open_adapter_tensors(folder).source, config, base));
  return {std::move(config), std::move(tensors)};
}

std::unique_ptr<ModelSource> with_adapter(std::unique_ptr<ModelSource> base,
                                          const Adapter& adapter) {
  auto merged = std::make_unique<ModelSource>();
  merged->base = std::move(base);
  const ModelSource& own = *merged->base;
  merged->kind = own.kind;
  merged->path = own.path;
  merged->spec = own.spec;
  merged->table = own.table;
  merged->companions = own.companions;
  merged->companion_files = own.companion_files;
  merged->layout = own.layout;
  merged->lora_alpha = own.lora_alpha;
  const Table table = with_experts_apart(merged->table);
  const auto tensors = originals(hugging_face_tensors(table));
  const auto face = assembled_source(merged->base, tensors, own.path.string());
  const auto transposed = transposed_names(table);
  const model::ForeignHabits habits = model::foreign_habits(own.spec);
  const auto source = merge_adapter(
      face, adapter,
      {.find = [&](const std::string& name) { return find_any_spelling(habits, *face, name); },
       .is_transposed = [&](const std::string& name) { return transposed.contains(name); }});
  merged->reader = std::make_unique<ParameterReader>(merged->table, tensors, std::vector{source},
                                                     own.path.string());
  return merged;
}

Adapter as_peft(const AdapterSource& source) {
  const std::string name = source.model->path.string();
  return {AdapterConfig(source.config, name),
          adapter_tensors(assembled_source(source.model, source.tensors, name))};
}

void write_peft_adapter(const AdapterSource& adapter, const fs::path& target,
                        std::optional<formats::Dtype> dtype, const ProgressFunction& progress) {
  const Targets targets(*adapter.model, tensors_of_folder(adapter), dtype, progress);
  ConversionFolder folder(target, targets.identity(adapter.config.dump()));
  write_file_atomically(folder.path() / "adapter_config.json", adapter.config.dump(2) + "\n",
                        FileRole::kCheckpoint);
  formats::write_sharded(folder.path(), targets.specs(), UINT64_MAX, targets.producer(),
                         "adapter_model", FileRole::kCheckpoint,
                         [&](const auto& name, const auto& write) { folder.write(name, write); });
  folder.commit();
}

Proof verify_peft_adapter(const AdapterSource& adapter, const fs::path& target) {
  ModelSource written;
  written.spec = adapter.model->spec;
  written.table = adapter.model->table;
  written.reader = std::make_unique<ParameterReader>(
      written.table, tensors_of_folder(adapter), std::vector{open_adapter_tensors(target).source},
      target.string());
  return verify(*adapter.model, written);
}

}  // namespace qianli::convert
