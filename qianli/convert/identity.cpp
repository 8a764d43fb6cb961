#include <fmt/core.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <chrono>

#include "qianli/base/error.h"
#include "qianli/base/version.h"
#include "qianli/convert/produce.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFiles = 1'000'000;

void add_file(const fs::path& path, std::string& text) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return;
  text += fmt::format("{}|{}|{}|{}.{}\n", path.string(), info.st_ino, info.st_size,
                      info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
}

void add_files(const fs::path& path, std::string& text) {
  if (path.empty()) return;
  if (!fs::is_directory(path)) return add_file(fs::absolute(path), text);
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(fs::absolute(path))) {
    if (entry.is_regular_file()) files.push_back(entry.path());
    if (files.size() > kMaxFiles) {
      throw CheckpointError("convert", fmt::format("{}: expected a model, got more than {} files",
                                                   path.string(), kMaxFiles));
    }
  }
  std::ranges::sort(files);
  for (const fs::path& file : files) add_file(file, text);
}

void add_tensor(const ForeignTensor& tensor, const formats::TensorSpec& spec, std::string& text) {
  text += fmt::format("{}|{}|{}|{}", tensor.name, formats::dtype_name(spec.dtype),
                      formats::shape_text(spec.shape), tensor.file);
  for (const Part& part : tensor.parts) {
    text += fmt::format("|{} {} {} {} {} {} {} {} {} {} {} {} {}", part.parameter, part.first_row,
                        part.rows, part.first_column, part.columns, part.offset, part.foreign_rows,
                        part.foreign_columns, part.transposed, part.foreign_row,
                        part.foreign_column, part.block, part.stride);
  }
  text += '\n';
}

}  // namespace

std::string Targets::identity(const std::string& more) const {
  std::string text = fmt::format("{}\n{}\n", version(), more);
  if (model_.path.empty()) {
    static std::atomic<uint64_t> count = 0;
    text +=
        fmt::format("{} {}", std::chrono::system_clock::now().time_since_epoch().count(), ++count);
  }
  add_files(model_.path, text);
  add_files(model_.adapter, text);
  if (model_.lora_alpha) text += fmt::format("lora_alpha {}\n", *model_.lora_alpha);
  if (const auto& u = model_.upcycling)
    text += fmt::format("upcycled {} {} {}\n", u->experts, u->top_k, u->seed);
  for (const model::CompanionFile& file : companions_of(model_)) {
    text +=
        fmt::format("{} {:016x}\n", file.name, XXH3_64bits(file.bytes.data(), file.bytes.size()));
  }
  for (size_t i = 0; i < tensors_.size(); ++i) add_tensor(tensors_[i], specs_[i], text);
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  return fmt::format("qianli-conversion 2 {:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace qianli::convert
