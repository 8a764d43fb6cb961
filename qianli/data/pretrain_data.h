// The data of a pretraining run from its configuration: text is prepared on first use, corpora are
// opened, split, blended and ordered.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "qianli/config/sections.h"
#include "qianli/data/batch_source.h"
#include "qianli/data/prepare.h"
#include "qianli/data/samples.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

// How many samples a run will ask for; 0: that split is not opened.
struct SampleCounts {
  int64_t train = 0;
  int64_t validation = 0;
};
// From train.steps, global_batch_size, eval_every and eval_batches, as in Megatron.
SampleCounts sample_counts(const config::TrainConfig& train);

struct PretrainData {
  std::shared_ptr<const SampleSet> train;
  std::shared_ptr<const SampleSet> validation;  // null where none is asked for
  MaskOptions masks;                            // vocab_size is left to the caller
};

// `tokenizer` may be null when every path is a .bin/.idx prefix. `cache` keeps prepared text and
// sample orders; runs may share it, also at the same time. Errors: ConfigError for senseless
// options, DataError for files that are missing or damaged.
PretrainData open_pretrain_data(const config::DataConfig& config,
                                std::shared_ptr<const text::Tokenizer> tokenizer,
                                const fs::path& cache, const SampleCounts& counts);

// The prefix of the token corpus for a path: the path itself where PATH.bin and PATH.idx are there,
// else text prepared into `cache`, keyed by path, settings and tokenizer, and made again whenever
// the text has changed. `encoder` may be absent when the path is a prefix. `eod`: what the corpus's
// manifest says, if it has one.
struct ResolvedCorpus {
  fs::path prefix;
  std::optional<int64_t> eod;
};
ResolvedCorpus resolve_corpus(const fs::path& path, const DocumentRules& rules, bool append_eod,
                              const std::optional<DocumentEncoder>& encoder, const fs::path& cache);

}  // namespace qianli::data
