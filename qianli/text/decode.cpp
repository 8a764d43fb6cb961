// Ids to text: whole lists, and streams.
#include <utility>

#include "qianli/text/tokenizer_impl.h"

namespace qianli::text {
namespace {

bool cleans_up(const Tokenizer& tokenizer, CleanUp clean_up) {
  return clean_up == CleanUp::kAlways ||
         (clean_up == CleanUp::kAsFile && tokenizer.config().clean_up_tokenization_spaces);
}

}  // namespace

std::string Tokenizer::decode(std::span<const int32_t> ids, const DecodeOptions& options) const {
  DecodeStream stream(impl_->decoder, cleans_up(*this, options.clean_up_spaces));
  std::string text;
  for (const int32_t id : ids) {
    const auto token = impl_->token(id);
    if (token.empty() || (options.skip_special_tokens && impl_->is_skipped(id))) continue;
    stream.push(token, text);
  }
  stream.finish(text);
  return text;
}

struct StreamingDecoder::State {
  DecodeStream stream;
};

StreamingDecoder::StreamingDecoder(std::shared_ptr<const Tokenizer> tokenizer,
                                   DecodeOptions options)
    : tokenizer_(std::move(tokenizer)),
      options_(options),
      state_(new State{
          {tokenizer_->impl_->decoder, cleans_up(*tokenizer_, options.clean_up_spaces)}}) {}
StreamingDecoder::~StreamingDecoder() = default;
StreamingDecoder::StreamingDecoder(StreamingDecoder&&) noexcept = default;
StreamingDecoder& StreamingDecoder::operator=(StreamingDecoder&&) noexcept = default;

std::string StreamingDecoder::push(int32_t id) {
  std::string text;
  const TokenizerImpl& impl = *tokenizer_->impl_;
  const auto token = impl.token(id);
  if (token.empty() || (options_.skip_special_tokens && impl.is_skipped(id))) return text;
  state_->stream.push(token, text);
  return text;
}

std::string StreamingDecoder::finish() {
  std::string text;
  state_->stream.finish(text);
  return text;
}

}  // namespace qianli::text
