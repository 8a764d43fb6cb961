// New tokens as text, up to the first stop string.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/text/tokenizer.h"

namespace qianli::infer {

class TextStream {
 public:
  // Empty stop strings are refused (ConfigError).
  TextStream(std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<std::string> stops,
             bool skip_special_tokens = true);

  // The text that is certain: no later token changes it, and no stop string begins in it.
  std::string push(int64_t id);
  // What was held back.
  std::string finish();
  // A stop string came; it and what follows are no part of the text.
  bool stopped() const { return stopped_; }

 private:
  std::string take(const std::string& text);

  text::StreamingDecoder decoder_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace qianli::infer
