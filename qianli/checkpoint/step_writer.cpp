#include "qianli/checkpoint/step_writer.h"

#include <fmt/format.h>

#include <span>
#include <stdexcept>
#include <string_view>
#include <unordered_map>

#include "qianli/base/file.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/safetensors_folder.h"
#include "qianli/model/hugging_face.h"

namespace qianli::checkpoint {
namespace {

using Piece = StepContents::Piece;

// A whole tensor has its own name, a part also says where it begins.
std::string key_of(const Piece& piece) {
  const std::string name = formats::state_name(piece.kind, piece.name);
  if (piece.box.shape == piece.shape) return name;
  return fmt::format("{}@{}", name, fmt::join(piece.box.offset, ","));
}

// "model", or "model-rank_00002".
std::string stem_of(const char* stem, const StepContents& contents) {
  return contents.ranks == 1 ? stem : fmt::format("{}-rank_{:05}", stem, contents.rank);
}

class PieceWriter {
 public:
  PieceWriter(const fs::path& folder, const StepContents& contents, formats::Manifest& manifest)
      : folder_(folder), contents_(contents), manifest_(manifest) {}

  void write(const char* stem, bool weights) {
    std::vector<formats::TensorSpec> specs;
    std::unordered_map<std::string, const Piece*> piece_of;
    for (const Piece& piece : contents_.pieces) {
      if ((piece.kind == formats::TensorKind::kWeight) != weights) continue;
      specs.push_back({.name = key_of(piece),
                       .dtype = stored_dtype(piece.values.scalar_type()),
                       .shape = piece.box.shape});
      piece_of.emplace(specs.back().name, &piece);
    }
    if (specs.empty()) return;
    const auto shards =
        formats::cut_into_shards(specs, static_cast<uint64_t>(contents_.max_shard_bytes));
    for (size_t i = 0; i < shards.size(); ++i) {
      const std::string name = formats::shard_name(stem_of(stem, contents_), i, shards.size());
      for (const formats::TensorSpec& spec : shards[i]) record(*piece_of.at(spec.name), spec, name);
      manifest_.files.push_back(formats::write_hashed_safetensors(
          folder_, name, shards[i],
          [&](const formats::TensorSpec& spec, const formats::ByteSink& sink) {
            const at::Tensor& values = piece_of.at(spec.name)->values;
            sink({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
          }));
    }
  }

 private:
  // The pieces of a tensor follow each other.
  void record(const Piece& piece, const formats::TensorSpec& spec, const std::string& file) {
    const auto key = fmt::format("{} {}", formats::kind_name(piece.kind), piece.name);
    const auto [place, fresh] = records_.emplace(key, manifest_.tensors.size());
    if (fresh) {
      manifest_.tensors.push_back(
          {.name = piece.name, .kind = piece.kind, .dtype = spec.dtype, .shape = piece.shape});
    }
    manifest_.tensors[place->second].slices.push_back(
        {.file = file, .key = spec.name, .offset = piece.box.offset, .shape = piece.box.shape});
  }

  const fs::path& folder_;
  const StepContents& contents_;
  formats::Manifest& manifest_;
  std::unordered_map<std::string, size_t> records_;
};

}  // namespace

uint64_t StepContents::num_bytes() const {
  uint64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.values.nbytes();
  for (const model::CompanionFile& file : companions) bytes += file.bytes.size();
  return bytes;
}

formats::Manifest write_pieces(const fs::path& folder, const StepContents& contents) {
  formats::Manifest manifest{.state = contents.state, .model = Json::object()};
  PieceWriter writer(folder, contents, manifest);
  writer.write("model", /*weights=*/true);
  writer.write("optimizer", /*weights=*/false);
  return manifest;
}

void write_rest(const fs::path& folder, const StepContents& contents,
                const std::vector<std::string>& manifests) {
  formats::Manifest own{.state = contents.state};
  const OrderedJson config =
      model::to_hugging_face(contents.spec, contents.wide ? "float64" : "float32");
  own.model = config;
  own.files.push_back(formats::write_hashed(folder, "config.json", config.dump(2) + "\n"));
  for (const model::CompanionFile& file : contents.companions) {
    own.files.push_back(formats::write_hashed(folder, file.name, file.bytes));
  }
  write_file_atomically(folder / formats::kManifestName, formats::join_manifests(own, manifests),
                        FileRole::kCheckpoint);
}

}  // namespace qianli::checkpoint
