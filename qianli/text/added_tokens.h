// Tokens that are found in the text before anything else is done with it ("<|im_end|>").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  // What decoding writes: the content, normalised for normalised tokens (as the reference library).
  std::string spelling;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // swallows white space on its left
  bool rstrip = false;
  bool normalized = false;  // looked for in the normalised text, not in the raw one
  bool special = false;
  bool matched = true;  // looked for in texts at all
  // By decode(skip_special_tokens): the spelling is a special token's content.
  bool skipped = false;
};

// A part of a text: an added token's id, or text between added tokens (id -1).
struct Segment {
  std::string_view text;
  int32_t id = -1;
};

// Finds a set of tokens in a text, leftmost first and longest at one place.
class AddedTokenFinder {
 public:
  // `pattern` is what to look for (the content, normalised for normalised tokens).
  void add(const AddedToken& token, std::string_view pattern);
  bool empty() const { return tokens_.empty(); }
  // Appends the parts of `text` in order; text parts are never empty.
  void split(std::string_view text, std::vector<Segment>& out) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> next;  // sorted by byte
    int32_t token = -1;
  };
  struct Found {
    size_t begin, end;
    const AddedToken* token;
  };
  bool find(std::string_view text, size_t from, Found& found) const;
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_{1};
  bool starts_[256] = {};
};

}  // namespace qianli::text
