#include <fmt/core.h>

#include "qianli/base/file.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {

void write_checkpoint(const ModelSource& model, const std::filesystem::path& target,
                      const TargetOptions& options, const ProgressFunction& progress) {
  const Targets targets(model, own_tensors(model.table), options.dtype, progress);
  const std::string type(formats::torch_type(targets.prevailing_dtype()).name);
  const OrderedJson config = model::to_hugging_face(model.spec, type);
  ConversionFolder folder(
      target,
      targets.identity(fmt::format("checkpoint {} {}", config.dump(), options.max_shard_bytes)),
      options.journal_step);
  formats::Manifest manifest{.model = config};
  const auto add_file = [&](const std::string& name, const std::string& bytes) {
    manifest.files.push_back(formats::write_hashed(folder.path(), name, bytes));
  };
  add_file("config.json", config.dump(2) + "\n");
  for (const model::CompanionFile& file : companions_of(model)) add_file(file.name, file.bytes);
  const auto produce = targets.producer();
  const auto shards = formats::cut_into_shards(targets.specs(), options.max_shard_bytes);
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = formats::shard_name("model", i, shards.size());
    folder.write(name, [&](FileGrowth growth) {
      manifest.files.push_back(formats::write_hashed_safetensors(folder.path(), name, shards[i],
                                                                 produce, std::move(growth)));
    });
    for (const formats::TensorSpec& tensor : shards[i]) {
      manifest.tensors.push_back(
          formats::whole_tensor(formats::TensorKind::kWeight, tensor.name, tensor, name));
    }
  }
  write_file_atomically(folder.path() / formats::kManifestName, to_json(manifest),
                        FileRole::kCheckpoint);
  folder.commit();
}

}  // namespace qianli::convert
