#include "qianli/data/prepare.h"

#include <fmt/core.h>

#include <algorithm>
#include <mutex>

#include "qianli/base/error.h"
#include "qianli/base/file_lock.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"
#include "qianli/data/digest.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {
namespace {

using formats::IndexedDataset;
using formats::IndexedDatasetWriter;

// One range of one input, tokenised into a corpus of its own.
struct Part {
  size_t input;
  ByteRange range;
  fs::path prefix;
};

struct Input {
  std::string name;
  DocumentKind kind;
  std::shared_ptr<const MappedFile> file;
  std::string_view content() const {
    return {reinterpret_cast<const char*>(file->data()), file->size()};
  }
};

// What a killed preparation left half-written beside the corpus.
void remove_leftovers(const fs::path& prefix) {
  const std::string begin = fmt::format(".{}.", prefix.filename().string());
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(fs::absolute(prefix).parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(begin) && name.find(".tmp-") != std::string::npos)
      fs::remove(entry, ignored);
  }
}

class Preparation {
 public:
  Preparation(const fs::path& prefix, const PrepareOptions& options, const DocumentEncoder& encoder)
      : prefix_(prefix),
        folder_(prefix.string() + ".parts"),
        options_(options),
        encoder_(encoder),
        dtype_(formats::optimal_token_dtype(encoder.vocab_size)) {}

  CorpusManifest run();

 private:
  CorpusManifest describe_job() const;
  std::optional<CorpusManifest> finished_before(const CorpusManifest& job) const;
  void open_folder(const CorpusManifest& job);
  void open_inputs();
  void cut_parts();
  void make_parts();
  void make_part(const Part& part) const;
  CorpusManifest assemble(CorpusManifest manifest) const;

  fs::path prefix_, folder_;
  const PrepareOptions& options_;
  const DocumentEncoder& encoder_;
  formats::TokenDtype dtype_;
  std::vector<Input> inputs_;
  std::vector<Part> parts_;
};

CorpusManifest Preparation::describe_job() const {
  CorpusManifest job;
  for (const fs::path& input : options_.inputs) {
    SourceFile source = SourceFile::stat(input);
    const auto file = MappedFile::open(input, FileRole::kData);
    file->advise_sequential();
    source.xxh3 = xxh3_hex(file->bytes());
    job.sources.push_back(std::move(source));
  }
  job.rules = options_.rules;
  job.append_eod = options_.append_eod;
  job.tokenizer = encoder_.fingerprint;
  job.vocab_size = encoder_.vocab_size;
  if (encoder_.eod) job.eod = *encoder_.eod;
  return job;
}

std::optional<CorpusManifest> Preparation::finished_before(const CorpusManifest& job) const {
  if (!IndexedDataset::exists(prefix_)) return std::nullopt;
  std::string reason = "without a manifest";
  try {
    if (auto manifest = CorpusManifest::of_prefix(prefix_)) {
      if (manifest->identity() == job.identity()) {
        check_prepared(prefix_, *manifest, std::nullopt);
        // The same bytes may have got another name or time.
        manifest->sources = job.sources;
        write_file_atomically(prefix_.string() + ".json", manifest->to_json(), FileRole::kData);
        return manifest;
      }
      reason = "made from other text or with other settings";
    }
  } catch (const DataError& error) {
    log::warn("data", "preparing again: {}", error.what());
    return std::nullopt;
  }
  if (options_.overwrite) return std::nullopt;
  throw DataError("data", fmt::format("{}.bin is there already, {}", prefix_.string(), reason),
                  "choose another name, or say --overwrite");
}

// Parts of another job are of no use.
void Preparation::open_folder(const CorpusManifest& job) {
  const fs::path job_file = folder_ / "job.json";
  std::error_code ignored;
  if (fs::exists(job_file, ignored)) {
    try {
      if (CorpusManifest::read(job_file).identity() == job.identity()) {
        log::info("data", "going on with the parts in {}", folder_.string());
        return;
      }
    } catch (const DataError&) {
    }
    log::info("data", "starting over: {} belongs to other text or settings", folder_.string());
  }
  fs::remove_all(folder_);
  create_folder(folder_, FileRole::kData);
  write_file_atomically(job_file, job.to_json(), FileRole::kData);
}

void Preparation::open_inputs() {
  for (size_t i = 0; i < options_.inputs.size(); ++i) {
    fs::path path = options_.inputs[i];
    if (path.extension() == ".gz") {
      const fs::path unpacked = folder_ / fmt::format("input-{}", i);
      if (!fs::exists(unpacked)) unpack_gzip(path, unpacked);
      path = unpacked;
    }
    Input input{options_.inputs[i].string(), DocumentKind::kPlainText,
                MappedFile::open(path, FileRole::kData)};
    input.kind = kind_of(options_.inputs[i], input.content());
    inputs_.push_back(std::move(input));
  }
}

void Preparation::cut_parts() {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Input& input = inputs_[i];
    for (const ByteRange range :
         cut_ranges(input.content(), input.kind, options_.rules, options_.part_bytes)) {
      // The place is in the name: a part made with another part size is not taken for this one.
      parts_.push_back({i, range, folder_ / fmt::format("{}-{}-{}", i, range.begin, range.end)});
    }
  }
}

void Preparation::make_part(const Part& part) const {
  const Input& input = inputs_[part.input];
  IndexedDatasetWriter writer(part.prefix, dtype_);
  std::vector<int32_t> ids;
  const auto add = [&](std::string_view text) {
    throw_if_stopped("data");
    ids.clear();
    encoder_.encode(text, ids);
    if (ids.empty()) return;
    if (options_.append_eod) ids.push_back(*encoder_.eod);
    writer.add_item(ids);
    writer.end_document();
  };
  for_each_document(input.content(), part.range, input.kind, options_.rules, input.name, add);
  writer.commit();
}

void Preparation::make_parts() {
  uint64_t total = 0, done = 0;
  std::vector<const Part*> missing;
  for (const Part& part : parts_) {
    total += part.range.size();
    if (IndexedDataset::exists(part.prefix)) {
      done += part.range.size();
    } else {
      missing.push_back(&part);
    }
  }
  std::mutex mutex;
  const auto report = [&](uint64_t bytes) {
    std::lock_guard lock(mutex);
    done += bytes;
    if (options_.report) options_.report(done, total);
  };
  report(0);
  const int threads = options_.threads > 0 ? options_.threads : available_cores();
  parallel_for(static_cast<int64_t>(missing.size()), threads, [&](int64_t i) {
    const Part& part = *missing[static_cast<size_t>(i)];
    throw_if_stopped("data");
    make_part(part);
    report(part.range.size());
  });
}

CorpusManifest Preparation::assemble(CorpusManifest manifest) const {
  IndexedDatasetWriter writer(prefix_, dtype_);
  for (const Part& part : parts_) {
    throw_if_stopped("data");
    writer.add_index(part.prefix);
  }
  manifest.documents = writer.num_documents();
  if (manifest.documents == 0) {
    throw DataError("data", fmt::format("expected text in {}, got none", inputs_[0].name));
  }
  // An old manifest must not speak of the new files.
  fs::remove(prefix_.string() + ".json");
  writer.commit();
  manifest.tokens = fs::file_size(prefix_.string() + ".bin") /
                    static_cast<uint64_t>(formats::token_bytes(dtype_));
  manifest.bin_fingerprint = fingerprint_of_file(prefix_.string() + ".bin");
  manifest.idx_fingerprint = fingerprint_of_file(prefix_.string() + ".idx");
  write_file_atomically(prefix_.string() + ".json", manifest.to_json(), FileRole::kData);
  return manifest;
}

CorpusManifest Preparation::run() {
  if (options_.inputs.empty())
    throw ConfigError("data", "expected at least one input file, got none");
  if (options_.append_eod && !encoder_.eod) {
    throw DataError("data", "expected a tokenizer with an end-of-document token, got one without",
                    "name eos_token in tokenizer_config.json, or set data.append_eod to false "
                    "(--no-append-eod)");
  }
  if (options_.rules.separator && options_.rules.separator->empty()) {
    throw ConfigError("data", "expected a separator of at least one character, got none");
  }
  create_folder(fs::absolute(prefix_).parent_path(), FileRole::kData);
  const FileLock lock(prefix_.string() + ".lock", FileRole::kData, "data");
  remove_leftovers(prefix_);
  const CorpusManifest job = describe_job();
  if (auto manifest = finished_before(job)) {
    log::info("data", "{} is there already, made from the same", prefix_.string());
    fs::remove_all(folder_);
    return *manifest;
  }
  open_folder(job);
  open_inputs();
  cut_parts();
  make_parts();
  CorpusManifest manifest = assemble(job);
  fs::remove_all(folder_);
  return manifest;
}

}  // namespace

CorpusManifest prepare_corpus(const fs::path& prefix, const PrepareOptions& options,
                              const DocumentEncoder& encoder) {
  return Preparation(prefix, options, encoder).run();
}

}  // namespace qianli::data
