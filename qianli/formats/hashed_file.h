// XXH3_64bits over what is written and read back.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/output_file.h"
#include "qianli/formats/manifest.h"

namespace qianli::formats {

// Writes folder/name, flushed to disk.
FileRecord write_hashed(const std::filesystem::path& folder, const std::string& name,
                        std::string_view bytes);
FileRecord write_hashed_safetensors(const std::filesystem::path& folder, const std::string& name,
                                    std::vector<TensorSpec> tensors, const TensorProducer& produce,
                                    FileGrowth growth = {});
// Of a file that is there.
FileRecord file_record(const std::filesystem::path& folder, const std::string& name);

// Compares sizes and hashes of the files with their records, several files at a time. Throws
// CheckpointError naming the first file that differs.
void verify_files(const std::filesystem::path& folder, const std::vector<FileRecord>& files);

}  // namespace qianli::formats
