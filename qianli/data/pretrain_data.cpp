#include "qianli/data/pretrain_data.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/data/digest.h"
#include "qianli/data/gpt_dataset.h"
#include "qianli/formats/indexed_dataset.h"

namespace qianli::data {
namespace {

using formats::IndexedDataset;

[[noreturn]] void no_such_path(const fs::path& path) {
  std::string hint = "give a text file, a JSONL file, or the prefix of a .bin/.idx pair";
  for (const char* suffix : {".bin", ".idx"}) {
    if (fs::exists(path.string() + suffix)) {
      hint = fmt::format("{}{} is there, but its partner is not", path.string(), suffix);
    }
  }
  const std::string usual = path.string() + "_text_document";
  if (IndexedDataset::exists(usual)) hint = fmt::format("perhaps {} is meant", usual);
  throw DataError("data", fmt::format("expected data at {}, got nothing", path.string()), hint);
}

void warn_of_newer_sources(const fs::path& prefix, const CorpusManifest& manifest) {
  for (const SourceFile& source : manifest.sources) {
    if (!fs::exists(source.path) || SourceFile::stat(source.path).same_stamp(source)) continue;
    log::warn("data", "{} was prepared from {}, which has changed since", prefix.string(),
              source.path);
  }
}

ResolvedCorpus open_prefix(const fs::path& prefix, const std::optional<DocumentEncoder>& encoder) {
  ResolvedCorpus corpus{prefix, std::nullopt};
  if (const auto manifest = CorpusManifest::of_prefix(prefix)) {
    const auto fingerprint = encoder ? std::optional(encoder->fingerprint) : std::nullopt;
    check_prepared(prefix, *manifest, fingerprint);
    warn_of_newer_sources(prefix, *manifest);
    corpus.eod = manifest->eod;
  }
  return corpus;
}

// The corpus in the cache, if it was made from this file as it is now: told by size and times
// alone, so that large files are not read at every start.
bool is_current(const fs::path& prefix, const fs::path& source) {
  try {
    const auto manifest = CorpusManifest::of_prefix(prefix);
    if (!manifest || manifest->sources.size() != 1 || !IndexedDataset::exists(prefix)) return false;
    if (!SourceFile::stat(source).same_stamp(manifest->sources[0])) return false;
    check_prepared(prefix, *manifest, std::nullopt);
    return true;
  } catch (const DataError& error) {
    log::warn("data", "preparing again: {}", error.what());
    return false;
  }
}

ResolvedCorpus prepare_text(const fs::path& path, const DocumentRules& rules, bool append_eod,
                            const DocumentEncoder& encoder, const fs::path& cache) {
  const std::string key = fs::absolute(path).lexically_normal().string() + '\0' + rules.text_key +
                          '\0' + rules.separator.value_or("") + '\0' + (append_eod ? "eod" : "") +
                          '\0' + encoder.fingerprint;
  const fs::path prefix =
      cache / fmt::format("{}-{}_{}_document", path.stem().string(), xxh3_hex(key), rules.text_key);
  ResolvedCorpus corpus{prefix, std::nullopt};
  if (encoder.eod) corpus.eod = *encoder.eod;
  if (is_current(prefix, path)) return corpus;
  Progress progress(fmt::format("preparing {}", path.filename().string()), fs::file_size(path),
                    "bytes");
  PrepareOptions options{
      .inputs = {path}, .rules = rules, .append_eod = append_eod, .overwrite = true};
  options.report = [&](uint64_t done, uint64_t) { progress.update(done); };
  const CorpusManifest manifest = prepare_corpus(prefix, options, encoder);
  progress.finish(fmt::format("{} documents, {} tokens", manifest.documents, manifest.tokens));
  return corpus;
}

GptDatasetOptions dataset_options(const config::DataConfig& config, const fs::path& cache,
                                  const std::optional<DocumentEncoder>& encoder) {
  GptDatasetOptions options{.sequence_length = config.sequence_length,
                            .seed = static_cast<uint32_t>(config.seed.value_or(1234)),
                            .cache_folder = cache / "orders"};
  options.tokenizer["class"] = "Tokenizer";
  if (encoder) options.tokenizer["fingerprint"] = encoder->fingerprint;
  return options;
}

void check_seed(const config::DataConfig& config) {
  const int64_t seed = config.seed.value_or(1234);
  if (seed >= 0 && seed <= 0xFFFFFFFF) return;
  throw ConfigError("data", fmt::format("expected data.seed in [0, 2^32), got {}", seed));
}

}  // namespace

SampleCounts sample_counts(const config::TrainConfig& train) {
  const int64_t batch = train.global_batch_size.value_or(train.micro_batch_size);
  SampleCounts counts{.train = train.steps * batch};
  if (train.eval_every > 0) {
    counts.validation = (train.steps / train.eval_every + 1) * train.eval_batches * batch;
  }
  return counts;
}

ResolvedCorpus resolve_corpus(const fs::path& path, const DocumentRules& rules, bool append_eod,
                              const std::optional<DocumentEncoder>& encoder,
                              const fs::path& cache) {
  if (IndexedDataset::exists(path)) return open_prefix(path, encoder);
  if (!fs::is_regular_file(path)) no_such_path(path);
  const std::string extension = path.extension().string();
  if (extension == ".bin" || extension == ".idx") {
    throw ConfigError("data",
                      fmt::format("expected the prefix of a .bin/.idx pair, got {}", path.string()),
                      fmt::format("write {}", (path.parent_path() / path.stem()).string()));
  }
  if (!encoder) {
    throw ConfigError("data",
                      fmt::format("expected a tokenizer for the text {}, got none", path.string()),
                      "set data.tokenizer to a folder with tokenizer.json");
  }
  return prepare_text(path, rules, append_eod, *encoder, cache);
}

PretrainData open_pretrain_data(const config::DataConfig& config,
                                std::shared_ptr<const text::Tokenizer> tokenizer,
                                const fs::path& cache, const SampleCounts& counts) {
  check_seed(config);
  std::optional<DocumentEncoder> encoder;
  if (tokenizer) encoder = document_encoder(tokenizer);
  PretrainData data;
  if (encoder && encoder->eod) data.masks.eod = *encoder->eod;
  const auto resolve = [&](const std::string& path) {
    const auto corpus =
        resolve_corpus(path, {.text_key = config.text_key}, config.append_eod.value_or(true),
                       encoder, cache / "prepared");
    if (corpus.eod) data.masks.eod = corpus.eod;
    return corpus.prefix.string();
  };
  std::vector<WeightedPath> corpora;
  for (const config::DataSource& source : config.path) {
    corpora.push_back({resolve(source.path), source.weight});
  }
  // A weight says nothing about a corpus that stands alone.
  if (corpora.size() == 1) corpora[0].weight.reset();

  const GptDatasetOptions options = dataset_options(config, cache, encoder);
  const bool own_validation = config.validation_path.has_value();
  const auto split_text = own_validation ? std::nullopt : std::optional(config.split);
  data.train = open_blend(corpora, Split::kTrain, split_text, counts.train, options);
  if (counts.validation > 0) {
    if (own_validation) corpora = {{resolve(*config.validation_path), std::nullopt}};
    data.validation =
        open_blend(corpora, Split::kValidation, split_text, counts.validation, options);
  }
  if (tokenizer && tokenizer->pad_id()) data.masks.pad = *tokenizer->pad_id();
  data.masks.eod_mask_loss = config.eod_mask_loss;
  data.masks.reset_position_ids = config.reset_position_ids;
  data.masks.reset_attention_mask = config.reset_attention_mask;
  const bool needs_eod =
      config.eod_mask_loss || config.reset_position_ids || config.reset_attention_mask;
  if (needs_eod && !data.masks.eod) {
    throw ConfigError(
        "data",
        "expected an end-of-document token for data.eod_mask_loss, data.reset_position_ids "
        "or data.reset_attention_mask, got none",
        "set data.tokenizer to one that names an end token");
  }
  return data;
}

}  // namespace qianli::data
