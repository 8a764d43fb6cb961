#include "qianli/formats/hashed_file.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <memory>

#include "qianli/base/threads.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/safetensors.h"

namespace qianli::formats {
namespace {

// Hashed while it is in the cache, then written in one call.
constexpr size_t kChunkBytes = size_t{4} << 20;

struct Free {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

}  // namespace

FileRecord write_hashed(const fs::path& folder, const std::string& name, std::string_view bytes) {
  write_file_atomically(folder / name, bytes, FileRole::kCheckpoint);
  return {.name = name, .bytes = bytes.size(), .xxh3 = XXH3_64bits(bytes.data(), bytes.size())};
}

FileRecord write_hashed_safetensors(const fs::path& folder, const std::string& name,
                                    std::vector<TensorSpec> tensors, const TensorProducer& produce,
                                    FileGrowth growth) {
  if (growth.found > 0) {  // and has to be read for the hash
    write_safetensors(folder / name, std::move(tensors), produce, {}, FileRole::kCheckpoint,
                      std::move(growth));
    return file_record(folder, name);
  }
  SafetensorsWriter writer(folder / name, std::move(tensors), {}, FileRole::kCheckpoint,
                           std::move(growth));
  const std::unique_ptr<XXH3_state_t, Free> hash(XXH3_createState());
  XXH3_64bits_reset(hash.get());
  XXH3_64bits_update(hash.get(), writer.header().data(), writer.header().size());
  FileRecord record{.name = name, .bytes = writer.header().size()};
  const ByteSink sink = [&](std::span<const std::byte> bytes) {
    record.bytes += bytes.size();
    while (!bytes.empty()) {
      const auto chunk = bytes.first(std::min(kChunkBytes, bytes.size()));
      XXH3_64bits_update(hash.get(), chunk.data(), chunk.size());
      writer.write(chunk);
      bytes = bytes.subspan(chunk.size());
    }
  };
  for (const TensorSpec& tensor : writer.tensors()) produce(tensor, sink);
  writer.commit();
  record.xxh3 = XXH3_64bits_digest(hash.get());
  return record;
}

FileRecord file_record(const fs::path& folder, const std::string& name) {
  const auto map = MappedFile::open(folder / name, FileRole::kCheckpoint);
  map->advise_sequential();
  return {.name = name, .bytes = map->size(), .xxh3 = XXH3_64bits(map->data(), map->size())};
}

void verify_files(const fs::path& folder, const std::vector<FileRecord>& files) {
  const auto count = static_cast<int64_t>(files.size());
  parallel_for(count, available_cores(), [&](int64_t i) {
    const FileRecord& expected = files[static_cast<size_t>(i)];
    if (file_record(folder, expected.name) == expected) return;
    reject(FileRole::kCheckpoint, (folder / expected.name).string(),
           fmt::format("its content is not what was saved (expected hash {:016x})", expected.xxh3),
           "the disk or a program changed it; go back to an older checkpoint");
  });
}

}  // namespace qianli::formats
