// The files of a Megatron checkpoint of format `torch`, one per rank.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/formats/tensor_source.h"
#include "qianli/formats/torch_file.h"

namespace qianli::convert {

// The folder of the iteration that latest_checkpointed_iteration.txt names; without that file
// `path` itself.
std::filesystem::path iteration_folder(const std::filesystem::path& path);
bool has_tracker(const std::filesystem::path& path);
bool has_rank_folders(const std::filesystem::path& folder);

// In an iteration's folder, {"args": Namespace}: what stands in every rank's file otherwise, which
// torch.load(weights_only=True) then refuses.
inline constexpr const char* kArgumentsBeside = "arguments.pt";

struct RankFiles {
  std::filesystem::path folder;
  std::shared_ptr<const formats::TorchFile> first;  // that of rank 0
  std::shared_ptr<const formats::TorchFile>
      told_args;          // the file with `args`: first, or one beside
  MegatronLayout layout;  // as the arguments tell it, names apart
  // The weights, one for each of megatron_ranks(layout). Names begin with the chunk's key.
  std::vector<std::shared_ptr<const formats::TensorSource>> sources;

  StoredArguments arguments() const;
};

// Throws CheckpointError where a rank's file is missing.
RankFiles open_rank_files(const std::filesystem::path& iteration);

// What the tensors' names and the version tell of the layout. Throws CheckpointError where the
// version has an order of rows that is not followed.
void read_names(const RankFiles& files, const model::ModelSpec& spec, MegatronLayout& layout);

}  // namespace qianli::convert
