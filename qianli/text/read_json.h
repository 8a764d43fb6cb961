// The parts of a tokenizer.json, each read from its object. Internal to the room.
#pragma once

#include <memory>
#include <vector>

#include "qianli/text/json_view.h"
#include "qianli/text/tokenizer_impl.h"

namespace qianli::text {

std::unique_ptr<const Normalizer> read_normalizer(const JsonView& json);
void read_pre_tokenizer(const JsonView& json, PreTokenizer& pre_tokenizer);
std::vector<DecodeStep> read_decoder(const JsonView& json);
// No tokenizer comes near; an embedding table of this height would be absurd.
constexpr int64_t kMaxId = (int64_t{1} << 24) - 1;
// {"token": id, ...}
void read_vocabulary(const JsonView& json, Vocabulary& vocabulary);
// Fills vocabulary, model and cutter; the pre-tokenizer is known already.
void read_model(const JsonView& json, TokenizerImpl& tokenizer);
// Fills the added tokens but for their finders; vocabulary and normalizer are known already.
void read_added_tokens(const JsonView& json, TokenizerImpl& tokenizer);
// Fills prefix and suffix; the tokens are known already.
void read_post_processor(const JsonView& json, TokenizerImpl& tokenizer);

// The steps around a model, as JSON texts; empty ones are absent.
struct Pipeline {
  std::string normalizer, pre_tokenizer, decoder;
};
void read_pipeline(const Pipeline& pipeline, TokenizerImpl& tokenizer);

// {"String": "x"} or {"Regex": "x"}.
std::unique_ptr<const Pattern> read_pattern(const JsonView& json);
// Nested "Sequence" objects end here.
constexpr int kMaxSequenceDepth = 8;
// The items of a Sequence, which different kinds call by different names; depth is checked.
std::vector<JsonView> sequence_items(const JsonView& json, std::string_view key, int depth);

}  // namespace qianli::text
