// Checkpoints of torch.distributed.checkpoint (DCP), which Megatron's torch_dist and FSDP write: a
// pickle `.metadata` that says which chunk of which tensor lies where, and files __R_N.distcp, in
// which every chunk is a torch.save archive of its own.
// (torch/distributed/checkpoint/metadata.py and filesystem.py; seen with torch 2.11)
#pragma once

#include <map>
#include <memory>

#include "qianli/formats/torch_file.h"

namespace qianli::formats {

// Bytes of a file of the folder.
struct DistributedPlace {
  std::string file;
  uint64_t offset = 0;
  uint64_t num_bytes = 0;
};

// A box of a tensor.
struct DistributedChunk {
  std::vector<int64_t> offsets, sizes;
  DistributedPlace place;
};

struct DistributedTensor {
  TensorSpec spec;
  std::vector<DistributedChunk> chunks;  // they fill the tensor without overlap
};

struct DistributedMetadata {
  std::vector<DistributedTensor> tensors;           // in the order of the state dictionary
  std::map<std::string, DistributedPlace> objects;  // everything else: archives of torch.save
  // Megatron: the shapes of tensors that are stored flat (`nd_reformulated_orig_global_shape`).
  std::map<std::string, std::vector<int64_t>> original_shapes;
};

// Reads the bytes of `.metadata`. Throws the error of `role` naming source, tensor and reason for
// chunks that leave their tensor, overlap or do not fill it, or have no place in a file, and files
// outside the folder.
DistributedMetadata parse_distributed_metadata(std::span<const std::byte> bytes,
                                               const std::string& source, FileRole role);

class DistributedCheckpoint {
 public:
  static std::shared_ptr<const DistributedCheckpoint> open(const fs::path& folder,
                                                           FileRole role = FileRole::kCheckpoint);
  static bool exists(const fs::path& folder);

  const DistributedMetadata& metadata() const { return metadata_; }
  const fs::path& folder() const { return folder_; }
  // What is stored under the name of an object that is no tensor.
  std::shared_ptr<const TorchFile> object(const std::string& name) const;
  // The archive of a chunk, whose tensor is checked to have its type and sizes.
  std::shared_ptr<const TorchFile> chunk(const DistributedTensor& tensor,
                                         const DistributedChunk& chunk) const;

 private:
  DistributedCheckpoint(fs::path folder, FileRole role) : folder_(std::move(folder)), role_(role) {}
  void check_place(const std::string& name, const DistributedPlace& place);
  std::span<const std::byte> bytes_at(const DistributedPlace& place) const;

  fs::path folder_;
  FileRole role_;
  DistributedMetadata metadata_;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
};

std::unique_ptr<TensorSource> open_distributed_source(
    std::shared_ptr<const DistributedCheckpoint> checkpoint);

}  // namespace qianli::formats
