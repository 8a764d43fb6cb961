#include "qianli/convert/checkpoint/reader.h"

#include "qianli/convert/adapter/trained.h"
#include "qianli/formats/checkpoint_folder.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {

namespace fs = std::filesystem;

std::optional<fs::path> step_folder(const fs::path& path) {
  if (formats::is_checkpoint(path)) return path;
  for (const fs::path& folder : {path / "checkpoints", path}) {
    if (formats::steps_in(folder).empty()) continue;
    if (auto newest = formats::latest_checkpoint(folder)) return newest;
  }
  return std::nullopt;
}

bool is_checkpoint(const fs::path& path) { return step_folder(path).has_value(); }

std::unique_ptr<ModelSource> open_checkpoint(const fs::path& path, const SourceOptions&) {
  const fs::path folder = step_folder(path).value();
  const formats::Manifest manifest = formats::read_manifest(folder);
  if (is_partial(manifest)) return open_with_trained(folder, manifest);
  auto model = std::make_unique<ModelSource>();
  model->kind = "Qianli checkpoint";
  model->spec =
      model::from_hugging_face(manifest.model, (folder / formats::kManifestName).string());
  model->table = model::parameter_table(model->spec);
  model->companions = folder;
  std::vector<std::shared_ptr<const formats::TensorSource>> files = {
      formats::open_checkpoint_source(folder, manifest, {formats::TensorKind::kWeight})};
  model->reader = std::make_unique<ParameterReader>(model->table, own_tensors(model->table),
                                                    std::move(files), folder.string());
  return model;
}

}  // namespace qianli::convert
