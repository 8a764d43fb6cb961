#include "qianli/text/added_tokens.h"

#include <algorithm>

#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

bool is_word(char32_t c) {
  return (char_table().classes(c) & kWord) != 0 || c == 0x200C || c == 0x200D;
}
bool is_space(char32_t c) { return (char_table().classes(c) & kSpace) != 0; }

size_t begin_of_spaces_before(std::string_view text, size_t end) {
  while (end > 0) {
    const Decoded c = decode_last_char(text.substr(0, end));
    if (!is_space(c.code)) break;
    end -= c.size;
  }
  return end;
}

size_t end_of_spaces_after(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Decoded c = decode_char(text.data() + begin);
    if (!is_space(c.code)) break;
    begin += c.size;
  }
  return begin;
}

bool stands_alone(std::string_view text, size_t begin, size_t end) {
  const bool word_before = begin > 0 && is_word(decode_last_char(text.substr(0, begin)).code);
  const bool word_after = end < text.size() && is_word(decode_char(text.data() + end).code);
  return !word_before && !word_after;
}

}  // namespace

void AddedTokenFinder::add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty()) return;
  uint32_t node = 0;
  for (const char c : pattern) {
    const auto byte = static_cast<unsigned char>(c);
    auto& next = nodes_[node].next;
    auto place = std::lower_bound(next.begin(), next.end(), std::pair(byte, uint32_t{0}));
    if (place == next.end() || place->first != byte) {
      const auto fresh = static_cast<uint32_t>(nodes_.size());
      next.insert(place, {byte, fresh});
      nodes_.emplace_back();
      node = fresh;
    } else {
      node = place->second;
    }
  }
  // Of two tokens with one pattern the earlier is found.
  if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
  starts_[static_cast<unsigned char>(pattern[0])] = true;
}

bool AddedTokenFinder::find(std::string_view text, size_t from, Found& found) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    int32_t longest = -1;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto& next = nodes_[node].next;
      const auto byte = static_cast<unsigned char>(text[at]);
      const auto place = std::lower_bound(next.begin(), next.end(), std::pair(byte, uint32_t{0}));
      if (place == next.end() || place->first != byte) break;
      node = place->second;
      if (nodes_[node].token < 0) continue;
      longest = nodes_[node].token;
      found.end = at + 1;
    }
    if (longest >= 0) {
      found.begin = begin;
      found.token = &tokens_[static_cast<size_t>(longest)];
      return true;
    }
  }
  return false;
}

void AddedTokenFinder::split(std::string_view text, std::vector<Segment>& out) const {
  size_t done = 0;
  Found found{};
  for (size_t from = 0; find(text, from, found); from = found.end) {
    const AddedToken& token = *found.token;
    size_t begin = found.begin, end = found.end;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    // White space that an earlier token swallowed is gone.
    if (token.lstrip) begin = std::max(begin_of_spaces_before(text, begin), done);
    if (token.rstrip) end = end_of_spaces_after(text, end);
    if (done < begin) out.push_back({text.substr(done, begin - done)});
    out.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done != text.size()) out.push_back({text.substr(done)});
}

}  // namespace qianli::text
