#include "qianli/checkpoint/export.h"

#include <ATen/ops/empty.h>
#include <fmt/core.h>

#include <algorithm>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/model/companion_files.h"
#include "qianli/checkpoint/foreign.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/hugging_face.h"

namespace qianli::checkpoint {
namespace {

// Elements converted at a time: one piece is small beside the model, and large for the disk.
constexpr int64_t kPieceElements = int64_t{8} << 20;

const char* torch_name(formats::Dtype dtype) {
  switch (dtype) {
    case formats::Dtype::kF64:
      return "float64";
    case formats::Dtype::kF32:
      return "float32";
    case formats::Dtype::kF16:
      return "float16";
    case formats::Dtype::kBF16:
      return "bfloat16";
    default:
      throw ConfigError("checkpoint", fmt::format("expected dtype F64, F32, F16 or BF16, got {}",
                                                  formats::dtype_name(dtype)));
  }
}

void hand_over(const at::Tensor& values, at::ScalarType type, const formats::ByteSink& sink) {
  const at::Tensor piece = values.to(at::kCPU, type).contiguous();
  sink({static_cast<const std::byte*>(piece.const_data_ptr()), piece.nbytes()});
}

// Whether the parts follow each other in the foreign tensor as they are: no weaving, no
// transposing.
bool is_plain(const std::vector<ForeignPart>& parts) {
  int64_t next = 0;
  for (const ForeignPart& part : parts) {
    if (part.piece.block != 0 || part.piece.transposed || part.piece.foreign_row != next) {
      return false;
    }
    next += part.piece.rows;
  }
  return true;
}

// One slice of a foreign tensor: its rows one below the other, converted piece by piece, or put
// together first where they are woven.
void produce_slice(std::vector<ForeignPart> parts, const nn::ParameterSet& parameters,
                   at::ScalarType type, const formats::ByteSink& sink) {
  const auto by_row = [](const ForeignPart& part) { return part.piece.foreign_row; };
  std::ranges::sort(parts, {}, by_row);
  if (!is_plain(parts)) {
    const model::ForeignPiece& first = parts[0].piece;
    const int64_t elements = first.elements() / first.slices;
    const at::Tensor slice = at::empty({elements}, at::TensorOptions().dtype(type));
    for (const ForeignPart& part : parts) {
      model::ForeignPiece alone = part.piece;
      alone.slices = 1;
      alone.index = 0;
      foreign_rows(alone, slice).copy_(own_rows(part.piece, parameters.exact(part.parameter)));
    }
    return hand_over(slice, type, sink);
  }
  for (const ForeignPart& part : parts) {
    const at::Tensor rows = own_rows(part.piece, parameters.exact(part.parameter));
    const int64_t step = std::max<int64_t>(1, kPieceElements / part.piece.columns);
    for (int64_t first = 0; first < rows.size(0); first += step) {
      hand_over(rows.narrow(0, first, std::min(step, rows.size(0) - first)), type, sink);
    }
  }
}

// The bytes of one foreign tensor, slice by slice.
void produce(const ForeignTensor& tensor, const nn::ParameterSet& parameters, at::ScalarType type,
             const formats::ByteSink& sink) {
  std::vector<std::vector<ForeignPart>> slices(static_cast<size_t>(tensor.parts[0].piece.slices));
  for (const ForeignPart& part : tensor.parts) {
    slices.at(static_cast<size_t>(part.piece.index)).push_back(part);
  }
  for (auto& slice : slices) produce_slice(std::move(slice), parameters, type, sink);
}

std::string generation_config(const model::ModelSpec& spec) {
  OrderedJson json;
  json["_from_model_config"] = true;
  if (spec.bos_token_id) json["bos_token_id"] = *spec.bos_token_id;
  if (spec.eos_token_ids.size() == 1) json["eos_token_id"] = spec.eos_token_ids[0];
  if (spec.eos_token_ids.size() > 1) json["eos_token_id"] = spec.eos_token_ids;
  if (spec.pad_token_id) json["pad_token_id"] = *spec.pad_token_id;
  return json.dump(2) + "\n";
}

void write_companions(const fs::path& folder, const model::ModelSpec& spec,
                      const fs::path& tokenizer) {
  bool has_generation_config = false;
  for (const model::CompanionFile& file : model::read_companion_files(tokenizer)) {
    write_file_atomically(folder / file.name, file.bytes, FileRole::kCheckpoint);
    has_generation_config |= file.name == "generation_config.json";
  }
  if (has_generation_config) return;
  write_file_atomically(folder / "generation_config.json", generation_config(spec),
                        FileRole::kCheckpoint);
}

}  // namespace

void export_hugging_face(const fs::path& folder, const model::ModelSpec& spec,
                         const nn::ParameterSet& parameters, const ExportOptions& options) {
  const std::string config = model::to_hugging_face(spec, torch_name(options.dtype)).dump(2) + "\n";
  const auto tensors = foreign_tensors(parameters);
  std::vector<formats::TensorSpec> specs;
  std::unordered_map<std::string_view, const ForeignTensor*> by_name;
  for (const ForeignTensor& tensor : tensors) {
    const auto dtype = tensor.buffer ? formats::Dtype::kF32 : options.dtype;
    specs.push_back({.name = tensor.name, .dtype = dtype, .shape = tensor.shape});
    by_name.emplace(tensor.name, &tensor);
  }
  if (fs::exists(folder)) {
    throw_file_error(FileRole::kCheckpoint, fmt::format("{} exists already", folder.string()),
                     "choose another name; nothing was overwritten");
  }
  AtomicFolder written(folder, FileRole::kCheckpoint);
  write_file_atomically(written.path() / "config.json", config, FileRole::kCheckpoint);
  write_companions(written.path(), spec, options.tokenizer);
  formats::write_sharded(written.path(), specs, static_cast<uint64_t>(options.max_shard_bytes),
                         [&](const formats::TensorSpec& tensor, const formats::ByteSink& sink) {
                           produce(*by_name.at(tensor.name), parameters,
                                   scalar_type(tensor.dtype).value(), sink);
                         });
  written.commit();
}

}  // namespace qianli::checkpoint
