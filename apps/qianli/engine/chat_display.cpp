#include "apps/qianli/engine/chat_display.h"

#include <algorithm>

namespace qianli::app {
namespace {

constexpr std::string_view kBegin = "<think>", kEnd = "</think>";

// Bytes at the end of `text` that may be the beginning of `tag`.
size_t begun(std::string_view text, std::string_view tag) {
  for (size_t count = std::min(text.size(), tag.size() - 1); count > 0; --count) {
    if (text.ends_with(tag.substr(0, count))) return count;
  }
  return 0;
}

}  // namespace

void ThoughtFilter::push(std::string_view text) {
  held_ += text;
  while (true) {
    const std::string_view tag = thinking_ ? kEnd : kBegin;
    const size_t place = held_.find(tag);
    if (place == std::string::npos) break;
    give(held_.substr(0, place));
    held_.erase(0, place + tag.size());
    thinking_ = !thinking_;
    skip_line_feeds_ = true;
  }
  const size_t certain = held_.size() - begun(held_, thinking_ ? kEnd : kBegin);
  give(held_.substr(0, certain));
  held_.erase(0, certain);
}

void ThoughtFilter::finish() {
  give(std::move(held_));
  held_.clear();
}

void ThoughtFilter::give(std::string text) {
  if (skip_line_feeds_) text.erase(0, text.find_first_not_of('\n'));
  if (text.empty()) return;
  skip_line_feeds_ = false;
  sink_({std::move(text), thinking_});
}

}  // namespace qianli::app
