// The decoders of tokenizer.json as a chain of steps that works token by token, so that decoding a
// whole list and decoding a stream are one and the same.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/text/pattern.h"

namespace qianli::text {

struct DecodeStep {
  enum class Kind {
    kByteLevel,       // byte-level alphabet to bytes; fuses all tokens
    kReplace,         // `pattern` by `content` within each token
    kReplaceText,     // `from` by `content` in the fused text
    kByteFallback,    // runs of "<0xHH>" to text; an ill-formed run gives one U+FFFD a byte
    kFuse,            // one text from here on
    kStrip,           // up to `start` and `stop` characters `content` at the ends
    kMetaspace,       // `content` to space; dropped from the first token when `start` is 1
    kWordPiece,       // a space before tokens without the prefix `content`; `start` 1: clean-up
    kEndOfWord,       // the suffix `content` to a space, to nothing in the last token
    kSentencePiece,   // as SentencePiece decodes, see `sentencepiece` in decoder.cpp
    kJoinWithSpaces,  // what the library does without a decoder
  };
  Kind kind;
  std::string content;
  size_t start = 0, stop = 0;
  std::shared_ptr<const Pattern> pattern;
  std::string from = {};
  bool bytes = false;  // kSentencePiece: "<0xHH>" are bytes
};

class DecodeStream {
 public:
  // `steps` outlives the stream.
  DecodeStream(const std::vector<DecodeStep>& steps, bool clean_up_spaces);
  // Appends to `out` the text that later tokens can no longer change.
  void push(std::string_view token, std::string& out);
  void finish(std::string& out);

 private:
  struct State {
    std::string held;  // bytes, or text, whose fate later tokens decide
    bool started = false;
    size_t stripped = 0;  // characters taken from the front
    bool stripping = true;
  };
  void run(size_t index, std::string_view token, std::string& out);
  void emit(std::string_view text, std::string& out);
  void byte_level(size_t index, std::string_view token, std::string& out);
  void byte_fallback(size_t index, std::string_view token, std::string& out);
  void end_byte_run(size_t index, std::string& out);
  void replace(size_t index, std::string_view token, std::string& out);
  void strip_token(size_t index, std::string_view token, std::string& out);
  void strip_text(size_t index, std::string_view text, std::string& out);
  void replace_text(size_t index, std::string_view text, std::string& out);
  void word_piece(size_t index, std::string_view token, std::string& out);
  void end_of_word(size_t index, std::string_view token, std::string& out);
  void sentencepiece(size_t index, std::string_view token, std::string& out);
  void sentencepiece_bytes(size_t index, bool at_end, std::string& out);
  void metaspace(size_t index, std::string_view token, std::string& out);
  void finish_step(size_t index, std::string& out);
  bool fused_before(size_t index) const;

  const std::vector<DecodeStep>& steps_;
  std::vector<State> states_;
  bool clean_up_;
  std::string unclean_;  // text waiting for the clean-up of spaces
};

// Removes the space before . ? ! , and contractions, as transformers' clean_up_tokenization;
// `word_piece` adds the rule " do not" -> " don't" that the WordPiece decoder has.
std::string clean_up_spaces(std::string text, bool word_piece = false);

}  // namespace qianli::text
