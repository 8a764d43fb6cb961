#include "qianli/checkpoint/hashed_file.h"

#include <fmt/core.h>

#include "qianli/base/file.h"
#include "qianli/base/threads.h"

namespace qianli::checkpoint {

FileRecord write_hashed(const fs::path& folder, const std::string& name, std::string_view bytes) {
  write_file_atomically(folder / name, bytes, FileRole::kCheckpoint);
  return {.name = name, .bytes = bytes.size(), .xxh3 = XXH3_64bits(bytes.data(), bytes.size())};
}

void verify_files(const fs::path& step_folder, const Manifest& manifest) {
  std::string problem;
  if (!files_complete(step_folder, manifest, problem)) {
    throw_file_error(FileRole::kCheckpoint, problem, "the checkpoint is incomplete");
  }
  const auto count = static_cast<int64_t>(manifest.files.size());
  parallel_for(count, available_cores(), [&](int64_t i) {
    const FileRecord& file = manifest.files[i];
    const auto map = MappedFile::open(step_folder / file.name, FileRole::kCheckpoint);
    map->advise_sequential();
    if (map->size() == file.bytes && XXH3_64bits(map->data(), map->size()) == file.xxh3) return;
    throw_file_error(FileRole::kCheckpoint,
                     fmt::format("{}: its content is not what was saved (expected hash {:016x})",
                                 map->path().string(), file.xxh3),
                     "the disk or a program changed it; go back to an older checkpoint");
  });
}

}  // namespace qianli::checkpoint
