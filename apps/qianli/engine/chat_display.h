// What a conversation shows of an answer while it appears.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace qianli::app {

// Takes the thoughts out of a text that comes in pieces: what stands between <think> and </think>,
// and the tags themselves.
class ThoughtFilter {
 public:
  struct Part {
    std::string text;
    bool thought;
  };
  using Sink = std::function<void(const Part&)>;

  // `thinking`: the prompt has opened the thought already.
  ThoughtFilter(bool thinking, Sink sink) : sink_(std::move(sink)), thinking_(thinking) {}
  // Text that cannot be the beginning of a tag goes on at once.
  void push(std::string_view text);
  void finish();

 private:
  void give(std::string text);

  Sink sink_;
  std::string held_;
  bool thinking_;
  bool skip_line_feeds_ = false;  // behind a thought
};

}  // namespace qianli::app
