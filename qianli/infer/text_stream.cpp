#include "qianli/infer/text_stream.h"

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::infer {
namespace {

// Bytes at the end of `text` that may be the beginning of `stop`.
size_t begun(std::string_view text, std::string_view stop) {
  for (size_t count = std::min(text.size(), stop.size() - 1); count > 0; --count) {
    if (text.substr(text.size() - count) == stop.substr(0, count)) return count;
  }
  return 0;
}

}  // namespace

TextStream::TextStream(std::shared_ptr<const text::Tokenizer> tokenizer,
                       std::vector<std::string> stops, bool skip_special_tokens)
    : decoder_(std::move(tokenizer), {.skip_special_tokens = skip_special_tokens}),
      stops_(std::move(stops)) {
  for (const std::string& stop : stops_) {
    if (stop.empty()) throw ConfigError("generate", "expected stop strings, got an empty one");
  }
}

std::string TextStream::take(const std::string& text) {
  held_ += text;
  size_t first = std::string::npos, waiting = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    waiting = std::max(waiting, begun(held_, stop));
  }
  if (first != std::string::npos) stopped_ = true;
  const size_t certain = stopped_ ? first : held_.size() - waiting;
  std::string given = held_.substr(0, certain);
  held_.erase(0, stopped_ ? held_.size() : certain);
  return given;
}

std::string TextStream::push(int64_t id) {
  return stopped_ ? std::string() : take(decoder_.push(static_cast<int32_t>(id)));
}

std::string TextStream::finish() {
  if (stopped_) return {};
  std::string given = take(decoder_.finish());
  if (!stopped_) given += held_;
  held_.clear();
  return given;
}

}  // namespace qianli::infer
