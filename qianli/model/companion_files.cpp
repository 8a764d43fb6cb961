#include "qianli/model/companion_files.h"

#include <fmt/core.h>

#include "qianli/base/file.h"

namespace qianli::model {
namespace {

constexpr const char* kNames[] = {
    "tokenizer.json",
    "tokenizer.json.gz",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tiktoken.model",
    "tekken.json",
    "vocab.txt",
};
constexpr uint64_t kMaxBytes = uint64_t{256} << 20;

}  // namespace

std::vector<CompanionFile> read_companion_files(const fs::path& source) {
  std::vector<CompanionFile> files;
  if (source.empty()) return files;
  const auto add = [&](const fs::path& path) {
    files.push_back({path.filename(), read_file(path, FileRole::kCheckpoint, kMaxBytes)});
  };
  if (fs::is_regular_file(source)) {
    add(source);
    return files;
  }
  if (!fs::is_directory(source)) {
    throw_file_error(FileRole::kCheckpoint,
                     fmt::format("expected a tokenizer folder, got {}", source.string()));
  }
  for (const char* name : kNames) {
    if (fs::is_regular_file(source / name)) add(source / name);
  }
  for (const auto& entry : fs::directory_iterator(source)) {
    if (entry.path().extension() == ".tiktoken" && entry.is_regular_file()) add(entry.path());
  }
  return files;
}

}  // namespace qianli::model
