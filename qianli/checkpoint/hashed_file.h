// XXH3_64bits over what is written and read back.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "qianli/checkpoint/manifest.h"

namespace qianli::checkpoint {

class Hasher {
 public:
  Hasher() { XXH3_64bits_reset(state_); }
  ~Hasher() { XXH3_freeState(state_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void update(const void* data, size_t bytes) { XXH3_64bits_update(state_, data, bytes); }
  uint64_t digest() const { return XXH3_64bits_digest(state_); }

 private:
  XXH3_state_t* state_ = XXH3_createState();
};

// Writes folder/name, flushed to disk.
FileRecord write_hashed(const std::filesystem::path& folder, const std::string& name,
                        std::string_view bytes);

// Compares sizes and hashes of all files with the manifest, several files at a time. Throws
// CheckpointError naming the first file that differs.
void verify_files(const std::filesystem::path& step_folder, const Manifest& manifest);

}  // namespace qianli::checkpoint
