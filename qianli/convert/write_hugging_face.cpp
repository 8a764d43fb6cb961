#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/hugging_face.h"
#include "qianli/convert/produce.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/formats/torch_types.h"
#include "qianli/model/hugging_face.h"

namespace qianli::convert {

void write_hugging_face(const ModelSource& model, const std::filesystem::path& target,
                        const TargetOptions& options, const ProgressFunction& progress) {
  const Targets targets(model, hugging_face_tensors(model.table), options.dtype);
  const formats::Dtype dtype = targets.prevailing_dtype();
  const OrderedJson config = model::to_hugging_face(model.spec, formats::torch_type(dtype).name);
  refuse_existing(target);
  AtomicFolder folder(target, FileRole::kCheckpoint);
  write_file_atomically(folder.path() / "config.json", config.dump(2) + "\n",
                        FileRole::kCheckpoint);
  for (const model::CompanionFile& file : companions_of(model)) {
    write_file_atomically(folder.path() / file.name, file.bytes, FileRole::kCheckpoint);
  }
  formats::write_sharded(folder.path(), targets.specs(), options.max_shard_bytes,
                         targets.producer(progress));
  folder.commit();
}

}  // namespace qianli::convert
