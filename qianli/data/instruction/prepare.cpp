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

constexpr const char* kSuffixes[] = {".bin", ".idx"};

std::vector<fs::path> field_prefixes(const fs::path& prefix, const SampleEncoder& encoder) {
  std::vector<fs::path> prefixes = {fs::path(prefix.string() + "_packed")};
  for (const std::string& field : written_fields(encoder.fields()))
    prefixes.push_back(field_prefix(prefix, field));
  return prefixes;
}

std::vector<const KnownRows*> sets_of(const InstructionOptions& options) {
  std::vector<const KnownRows*> sets = {&options.rows};
  for (const KnownRows& rows : options.more) sets.push_back(&rows);
  return sets;
}

// Whether samples are written as they stand in the parts, or have an order of their own.
bool has_order(const InstructionOptions& options) {
  return (!options.more.empty() && options.mixing.strategy != MixStrategy::kConcat) ||
         (options.packing != Packing::kNone && options.num_subs > 1);
}

InstructionManifest describe_job(const InstructionOptions& options, const SampleEncoder& encoder) {
  InstructionManifest job;
  OrderedJson sets = OrderedJson::array();
  for (const KnownRows* rows : sets_of(options)) {
    for (const fs::path& file : rows->files) {
      SourceFile source = SourceFile::stat(file);
      source.xxh3 = xxh3_hex(MappedFile::open(file, FileRole::kData)->bytes());
      job.sources.push_back(std::move(source));
    }
    sets.push_back({{"format", name_of(rows->format)},
                    {"columns", rows->columns.to_json()},
                    {"files", rows->files.size()},
                    {"max_rows", rows->max_rows.value_or(0)}});
  }
  job.settings = {{"format", name_of(options.rows.format)},
                  {"columns", options.rows.columns.to_json()},
                  {"packing", static_cast<int>(options.packing)},
                  {"samples", encoder.identity()}};
  if (!options.more.empty() || options.rows.max_rows) job.settings["sets"] = std::move(sets);
  if (has_order(options)) {
    job.settings["mixing"] = options.mixing.to_json();
    job.settings["num_subs"] = options.num_subs;
  }
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
    size_t set, input;
    RowRange range;
    fs::path prefix;  // PART.FIELD.{bin,idx} and, last, PART.json
    fs::path counts() const { return prefix.string() + ".json"; }
  };

  std::optional<InstructionManifest> finished_before(const InstructionManifest& job) const;
  void cut_parts();
  void cut_file(size_t set, const fs::path& path, std::optional<int64_t>& rows_left);
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
  const auto sets = sets_of(options_);
  for (size_t set = 0; set < sets.size(); ++set) {
    std::optional<int64_t> rows_left = sets[set]->max_rows;
    for (const fs::path& path : sets[set]->files) cut_file(set, path, rows_left);
  }
}

void InstructionPreparation::cut_file(size_t set, const fs::path& path,
                                      std::optional<int64_t>& rows_left) {
  const size_t input = maps_.size();
  const auto& map = maps_.emplace_back(work_.input(input, path));
  files_.push_back(row_file(path, {reinterpret_cast<const char*>(map->data()), map->size()}));
  const RowFile& file = files_.back();
  for (RowRange range : cut_rows(file.content, file.kind, file.name, options_.part_bytes)) {
    if (rows_left && *rows_left == 0) return;
    if (rows_left) *rows_left -= keep_first_rows(file.content, file.kind, range, *rows_left);
    parts_.push_back(
        {set, input, range,
         work_.folder() / fmt::format("{}-{}-{}", input, range.bytes.begin, range.bytes.end)});
  }
}

void InstructionPreparation::make_part(const Part& part) const {
  const auto& fields = encoder_.fields();
  std::vector<std::unique_ptr<IndexedDatasetWriter>> writers;
  for (const std::string& field : fields)
    writers.push_back(std::make_unique<IndexedDatasetWriter>(part.prefix.string() + "." + field));
  std::optional<IndexedDatasetWriter> row_writer;
  if (has_order(options_)) row_writer.emplace(row_prefix(part.prefix));
  const KnownRows& rows = *sets_of(options_)[part.set];
  const ExampleRules rules{rows.format, rows.task, rows.columns, rows.legacy,
                           encoder_.options().additional};
  InstructionCounts counts;
  const auto add = [&](const Sample& sample, const std::string& place) {
    InstructionCounts one;
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
      if (row_writer) {
        const auto row = static_cast<int32_t>(counts.rows - counts.bad_rows);
        row_writer->add_item(std::span<const int32_t>(&row, 1));
        row_writer->end_document();
      }
    }
    counts.add(one);
  };
  const auto visit = [&](const OrderedJson& columns, const std::string& place) {
    throw_if_stopped("data");
    std::vector<Sample> samples;
    for (const Example& example : read_examples(columns, rules))
      samples.push_back(encoder_.encode(example));
    for (const Sample& sample : samples) add(sample, place);
    counts.add({.rows = 1});
  };
  const auto bad = [&](const std::string& problem) {
    if (options_.fail_on_bad_rows) {
      const bool has_hint = problem.find("Hint: ") != problem.npos;
      throw DataError("data", problem, has_hint ? "" : "--bad-rows skip leaves such rows out");
    }
    counts.add({.rows = 1, .bad_rows = 1, .first_bad_rows = {problem}});
  };
  for_each_row(files_[part.input], part.range, visit, bad);
  for (auto& writer : writers) writer->commit();
  if (row_writer) row_writer->commit();
  write_file_atomically(part.counts(), counts.to_json().dump(), FileRole::kData);
}

InstructionManifest InstructionPreparation::put_together(InstructionManifest manifest) const {
  Assembly assembly{.prefix = prefix_,
                    .fields = encoder_.fields(),
                    .packing = options_.packing,
                    .sequence_length = manifest.sequence_length,
                    .pad = encoder_.pad().value_or(0)};
  std::vector<PartRows> rows;
  for (const Part& part : parts_) {
    const auto counts = InstructionCounts::from_json(read_json(part.counts(), FileRole::kData));
    manifest.counts.add(counts);
    assembly.parts.push_back(part.prefix);
    rows.push_back({part.prefix, part.set, counts.rows - counts.bad_rows});
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
  if (has_order(options_)) {
    assembly.order =
        sample_order(rows, options_.more.size() + 1, options_.mixing, options_.num_subs);
  }
  const Assembled made = assemble(assembly);
  manifest.counts.sequences = made.sequences;
  if (assembly.order) {
    manifest.counts.samples = made.samples;
    manifest.counts.tokens = made.tokens;
    manifest.counts.trained = made.trained;
  }
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

void check_options(const InstructionOptions& options, const SampleEncoder& encoder) {
  check_mixing(options.mixing, options.more.size() + 1);
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

}  // namespace qianli::data
