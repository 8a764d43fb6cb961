// The small files beside a model's weights that make the folder usable: tokenizer and generation
// settings.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace qianli::model {

struct CompanionFile {
  std::string name;
  std::string bytes;
};

// Reads those of the known names that `source` (a folder, or one file) holds; nothing for an empty
// path. Throws CheckpointError where the path does not exist or a file is above 256 MB.
std::vector<CompanionFile> read_companion_files(const std::filesystem::path& source);

}  // namespace qianli::model
