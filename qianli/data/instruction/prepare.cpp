#include "qianli/data/instruction/prepare.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/data/digest.h"
#include "qianli/data/instruction/assemble.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {
namespace {

using formats::IndexedDataset;
using formats::IndexedDatasetWriter;

constexpr size_t kLookedAt = 100;
constexpr const char* kSuffixes[] = {".bin", ".idx"};

std::vector<fs::path> field_prefixes(const fs::path& prefix, const SampleEncoder& encoder) {
  std::vector<fs::path> prefixes = {fs::path(prefix.string() + "_packed")};
  for (const std::string& field : written_fields(encoder.fields()))
    prefixes.push_back(field_prefix(prefix, field));
  return prefixes;
}

InstructionManifest describe_job(const InstructionOptions& options, const SampleEncoder& encoder) {
  InstructionManifest job;
  for (const fs::path& file : options.rows.files) {
    SourceFile source = SourceFile::stat(file);
    source.xxh3 = xxh3_hex(MappedFile::open(file, FileRole::kData)->bytes());
    job.sources.push_back(std::move(source));
  }
  job.settings = {{"format", name_of(options.rows.format)},
                  {"columns", options.rows.columns.to_json()},
                  {"packing", static_cast<int>(options.packing)},
                  {"samples", encoder.identity()}};
  job.fields = written_fields(encoder.fields());
  if (options.packing != Packing::kNone) job.sequence_length = *encoder.options().sequence_length;
  return job;
}

class InstructionPreparation {
 public:
  InstructionPreparation(const fs::path& prefix, const InstructionOptions& options,
                         const SampleEncoder& encoder)
      : prefix_(prefix),
        work_(prefix.string() + "_packed", field_prefixes(prefix, encoder)),
        options_(options),
        encoder_(encoder),
        fields_(written_fields(encoder.fields())) {}

  InstructionManifest run();

 private:
  struct Part {
    size_t input;
    RowRange range;
    fs::path prefix;  // PART.FIELD.{bin,idx} and, last, PART.json
    fs::path counts() const { return prefix.string() + ".json"; }
  };

  std::optional<InstructionManifest> finished_before(const InstructionManifest& job) const;
  void cut_parts();
  void make_part(const Part& part) const;
  InstructionManifest put_together(InstructionManifest manifest) const;

  fs::path prefix_;
  PartedWork work_;
  const InstructionOptions& options_;
  const SampleEncoder& encoder_;
  std::vector<std::string> fields_;
  std::vector<std::shared_ptr<const MappedFile>> maps_;
  std::vector<RowFile> files_;
  std::vector<Part> parts_;
};

// Files of other data are not replaced unasked; those of this work that was interrupted are.
std::optional<InstructionManifest> InstructionPreparation::finished_before(
    const InstructionManifest& job) const {
  bool there = false;
  for (const std::string& field : fields_)
    there |= IndexedDataset::exists(field_prefix(prefix_, field));
  if (!there) return std::nullopt;
  std::string reason = "without a manifest";
  if (auto manifest = InstructionManifest::of_prefix(prefix_)) {
    reason = "made from other rows or with other settings";
    if (manifest->identity() == job.identity()) {
      for (const auto& [name, fingerprint] : manifest->fingerprints) {
        const fs::path file = prefix_.string() + "_packed_" + name;
        std::error_code ignored;
        if (fs::exists(file, ignored) && fingerprint_of_file(file) == fingerprint) continue;
        log::warn("data", "preparing again: {} has changed", file.string());
        return std::nullopt;
      }
      return manifest;
    }
  }
  if (options_.overwrite || work_.was_begun(job.identity())) return std::nullopt;
  throw DataError("data",
                  fmt::format("{} is there already, {}",
                              field_prefix(prefix_, fields_[0]).string() + ".bin", reason),
                  "choose another name, or say --overwrite");
}

void InstructionPreparation::cut_parts() {
  for (size_t i = 0; i < options_.rows.files.size(); ++i) {
    const fs::path& path = options_.rows.files[i];
    const auto& map = maps_.emplace_back(work_.input(i, path));
    files_.push_back(row_file(path, {reinterpret_cast<const char*>(map->data()), map->size()}));
    const RowFile& file = files_.back();
    for (const RowRange& range :
         cut_rows(file.content, file.kind, file.name, options_.part_bytes)) {
      parts_.push_back(
          {i, range,
           work_.folder() / fmt::format("{}-{}-{}", i, range.bytes.begin, range.bytes.end)});
    }
  }
}

void InstructionPreparation::make_part(const Part& part) const {
  const auto& fields = encoder_.fields();
  std::vector<std::unique_ptr<IndexedDatasetWriter>> writers;
  for (const std::string& field : fields)
    writers.push_back(std::make_unique<IndexedDatasetWriter>(part.prefix.string() + "." + field));
  const ExampleRules rules{options_.rows.format, options_.rows.task, options_.rows.columns,
                           encoder_.options().additional};
  InstructionCounts counts;
  const auto visit = [&](const OrderedJson& columns, const std::string& place) {
    throw_if_stopped("data");
    const Sample sample = encoder_.encode(read_example(columns, rules));
    InstructionCounts one{.rows = 1};
    for (const std::string& warning : sample.warnings)
      one.warnings.push_back(fmt::format("{}: {}", place, warning));
    one.too_long = sample.too_long ? 1 : 0;
    if (!sample.too_long) {
      one.samples = 1;
      one.cut = sample.cut ? 1 : 0;
      one.trained = sample.trained(fields);
      one.tokens = sample.tokens(fields);
      for (size_t f = 0; f < fields.size(); ++f) {
        writers[f]->add_item(std::span<const int32_t>(sample.fields[f]));
        writers[f]->end_document();
      }
    }
    counts.add(one);
  };
  const auto bad = [&](const std::string& problem) {
    if (options_.fail_on_bad_rows) {
      throw DataError("data", problem, "--bad-rows skip leaves such rows out");
    }
    counts.add({.rows = 1, .bad_rows = 1, .first_bad_rows = {problem}});
  };
  for_each_row(files_[part.input], part.range, visit, bad);
  for (auto& writer : writers) writer->commit();
  write_file_atomically(part.counts(), counts.to_json().dump(), FileRole::kData);
}

InstructionManifest InstructionPreparation::put_together(InstructionManifest manifest) const {
  Assembly assembly{.prefix = prefix_,
                    .fields = encoder_.fields(),
                    .packing = options_.packing,
                    .sequence_length = manifest.sequence_length,
                    .pad = encoder_.pad().value_or(0)};
  for (const Part& part : parts_) {
    manifest.counts.add(InstructionCounts::from_json(read_json(part.counts(), FileRole::kData)));
    assembly.parts.push_back(part.prefix);
  }
  if (manifest.counts.samples == 0) {
    const auto& counts = manifest.counts;
    throw DataError(
        "data",
        fmt::format(
            "expected samples from {}, got none: {} rows, {} of them bad, {} "
            "too long{}",
            options_.rows.files[0].string(), counts.rows, counts.bad_rows, counts.too_long,
            counts.first_bad_rows.empty() ? "" : "; the first: " + counts.first_bad_rows[0]));
  }
  // An old manifest must not speak of the new files.
  fs::remove(instruction_manifest_path(prefix_));
  manifest.counts.sequences = assemble(assembly);
  for (const std::string& field : fields_) {
    for (const char* suffix : kSuffixes) {
      manifest.fingerprints[field + "_document" + suffix] =
          fingerprint_of_file(field_prefix(prefix_, field).string() + suffix);
    }
  }
  write_file_atomically(instruction_manifest_path(prefix_), manifest.to_json(), FileRole::kData);
  return manifest;
}

InstructionManifest InstructionPreparation::run() {
  const InstructionManifest job = describe_job(options_, encoder_);
  if (auto manifest = finished_before(job)) {
    log::info("data", "{}_packed is there already, made from the same", prefix_.string());
    work_.finish();
    return *manifest;
  }
  work_.open(job.identity());
  cut_parts();
  std::vector<PartedWork::Part> parts;
  for (const Part& part : parts_) {
    parts.push_back(
        {part.range.bytes.size(), fs::exists(part.counts()), [this, &part] { make_part(part); }});
  }
  work_.make(parts, options_.threads, options_.report);
  InstructionManifest manifest = put_together(job);
  work_.finish();
  return manifest;
}

// Those that can be read; the others are told when all rows are.
std::vector<OrderedJson> first_rows(const fs::path& path) {
  std::vector<OrderedJson> rows;
  for_first_rows(
      path, kLookedAt,
      [&](const OrderedJson& columns, const std::string&) { rows.push_back(columns); },
      [](const std::string&) {});
  return rows;
}

// Files of several formats are no one data set.
void check_alike(const std::vector<fs::path>& files, const DetectedFormat& first) {
  for (size_t i = 1; i < files.size(); ++i) {
    const DetectedFormat other = detect_format(first_rows(files[i]), files[i].string());
    if (other.format == first.format && other.task == first.task) continue;
    throw DataError("data",
                    fmt::format("expected rows of one format, got {} ({}) in {} and {} ({}) in {}",
                                name_of(first.format), name_of(first.task), files[0].string(),
                                name_of(other.format), name_of(other.task), files[i].string()),
                    "prepare them one by one, or say --format");
  }
}

void check_options(const InstructionOptions& options, const SampleEncoder& encoder) {
  if (options.packing == Packing::kNone) return;
  if (encoder.options().task != InstructionTask::kSft)
    throw ConfigError("data", "expected --pack with the task sft only");
  if (!encoder.options().sequence_length)
    throw ConfigError("data", "expected --seq-length with --pack, got none");
  if (!encoder.pad())
    throw DataError("data", "expected a tokenizer with a padding token for --pack, got one without",
                    "name pad_token in tokenizer_config.json");
}

}  // namespace

std::string instruction_identity(const InstructionOptions& options, const SampleEncoder& encoder) {
  return describe_job(options, encoder).identity();
}

InstructionManifest prepare_instructions(const fs::path& prefix, const InstructionOptions& options,
                                         const SampleEncoder& encoder) {
  check_options(options, encoder);
  return InstructionPreparation(prefix, options, encoder).run();
}

KnownRows look_at_rows(const RowsOptions& options) {
  InputFiles input = input_files(options.inputs);
  if (input.files.empty()) throw ConfigError("data", "expected at least one input file, got none");
  KnownRows known{.files = std::move(input.files), .notices = std::move(input.notices)};
  const fs::path& first = known.files[0];
  const std::vector<OrderedJson> rows = first_rows(first);
  std::string map_keys = options.map_keys;
  if (options.format) {
    known.format = *options.format;
    known.task =
        options.task.value_or(known.format == RowFormat::kSteps ? InstructionTask::kProcessReward
                                                                : InstructionTask::kSft);
  } else {
    const DetectedFormat found = detect_format(rows, first.string());
    check_alike(known.files, found);
    known.format = found.format;
    known.task = options.task.value_or(found.task);
    if (map_keys.empty()) map_keys = found.map_keys;
    known.notices.push_back(fmt::format("{}: rows look like the format {}, used for {}",
                                        first.string(), name_of(known.format),
                                        name_of(known.task)));
  }
  if ((known.format == RowFormat::kSteps) != (known.task == InstructionTask::kProcessReward))
    throw ConfigError("data",
                      "expected the format steps with the task process-reward and no other");
  known.columns = column_map(known.format, map_keys);
  check_columns(known.columns, rows, first.string());
  return known;
}

}  // namespace qianli::data
