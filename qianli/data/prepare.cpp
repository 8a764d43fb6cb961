#include "qianli/data/prepare.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/data/digest.h"
#include "qianli/data/parted_work.h"
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

class Preparation {
 public:
  Preparation(const fs::path& prefix, const PrepareOptions& options, const DocumentEncoder& encoder)
      : prefix_(prefix),
        work_(prefix, {prefix}),
        options_(options),
        encoder_(encoder),
        dtype_(formats::optimal_token_dtype(encoder.vocab_size)) {}

  CorpusManifest run();

 private:
  CorpusManifest describe_job() const;
  std::optional<CorpusManifest> finished_before(const CorpusManifest& job) const;
  void open_inputs();
  void cut_parts();
  void make_parts();
  void make_part(const Part& part) const;
  CorpusManifest assemble(CorpusManifest manifest) const;

  fs::path prefix_;
  PartedWork work_;
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

void Preparation::open_inputs() {
  for (size_t i = 0; i < options_.inputs.size(); ++i) {
    const fs::path& path = options_.inputs[i];
    Input input{path.string(), DocumentKind::kPlainText, work_.input(i, path)};
    input.kind = kind_of(path, input.content());
    inputs_.push_back(std::move(input));
  }
}

void Preparation::cut_parts() {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const Input& input = inputs_[i];
    for (const ByteRange range :
         cut_ranges(input.content(), input.kind, options_.rules, options_.part_bytes)) {
      // The place is in the name: a part made with another part size is not taken for this one.
      parts_.push_back(
          {i, range, work_.folder() / fmt::format("{}-{}-{}", i, range.begin, range.end)});
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
  std::vector<PartedWork::Part> parts;
  for (const Part& part : parts_) {
    parts.push_back({part.range.size(), IndexedDataset::exists(part.prefix),
                     [this, &part] { make_part(part); }});
  }
  work_.make(parts, options_.threads, options_.report);
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
  const CorpusManifest job = describe_job();
  if (auto manifest = finished_before(job)) {
    log::info("data", "{} is there already, made from the same", prefix_.string());
    work_.finish();
    return *manifest;
  }
  work_.open(job.identity());
  open_inputs();
  cut_parts();
  make_parts();
  CorpusManifest manifest = assemble(job);
  work_.finish();
  return manifest;
}

void check_options(const PrepareOptions& options, const DocumentEncoder& encoder) {
  if (options.inputs.empty())
    throw ConfigError("data", "expected at least one input file, got none");
  if (options.append_eod && !encoder.eod) {
    throw DataError("data", "expected a tokenizer with an end-of-document token, got one without",
                    "name eos_token in tokenizer_config.json, or set data.append_eod to false "
                    "(--no-append-eod)");
  }
  if (options.rules.separator && options.rules.separator->empty()) {
    throw ConfigError("data", "expected a separator of at least one character, got none");
  }
}

}  // namespace

CorpusManifest prepare_corpus(const fs::path& prefix, const PrepareOptions& options,
                              const DocumentEncoder& encoder) {
  check_options(options, encoder);
  return Preparation(prefix, options, encoder).run();
}

}  // namespace qianli::data
