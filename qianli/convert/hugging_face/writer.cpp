#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {

namespace {

std::string generation_config(const model::ModelSpec& spec) {
  OrderedJson json;
  json["_from_model_config"] = true;
  if (spec.bos_token_id) json["bos_token_id"] = *spec.bos_token_id;
  if (spec.eos_token_ids.size() == 1) json["eos_token_id"] = spec.eos_token_ids[0];
  if (spec.eos_token_ids.size() > 1) json["eos_token_id"] = spec.eos_token_ids;
  if (spec.pad_token_id) json["pad_token_id"] = *spec.pad_token_id;
  return json.dump(2) + "\n";
}

void write_companions(const fs::path& folder, const ModelSource& model) {
  bool has_generation_config = false;
  for (const model::CompanionFile& file : companions_of(model)) {
    write_file_atomically(folder / file.name, file.bytes, FileRole::kCheckpoint);
    has_generation_config |= file.name == "generation_config.json";
  }
  if (has_generation_config) return;
  write_file_atomically(folder / "generation_config.json", generation_config(model.spec),
                        FileRole::kCheckpoint);
}

}  // namespace

void write_hugging_face(const ModelSource& model, const std::filesystem::path& target,
                        const TargetOptions& options, const ProgressFunction& progress) {
  const Targets targets(model, hugging_face_tensors(model.table), options.dtype, progress);
  const formats::Dtype dtype = targets.prevailing_dtype();
  const OrderedJson config = model::to_hugging_face(model.spec, formats::torch_type(dtype).name);
  ConversionFolder folder(
      target, targets.identity(fmt::format("{} {}", config.dump(), options.max_shard_bytes)),
      options.journal_step);
  write_file_atomically(folder.path() / "config.json", config.dump(2) + "\n",
                        FileRole::kCheckpoint);
  write_companions(folder.path(), model);
  formats::write_sharded(folder.path(), targets.specs(), options.max_shard_bytes,
                         targets.producer(), "model", FileRole::kCheckpoint,
                         [&](const auto& name, const auto& write) { folder.write(name, write); });
  folder.commit();
}

}  // namespace qianli::convert
