#include "qianli/text/jinja/strings.h"

#include <algorithm>

#include "qianli/text/unicode.h"

namespace qianli::text::jinja {

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return !is_continuation(c); }));
}

size_t character_size(std::string_view text, size_t at) {
  return decode_char(text.data() + at).size;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += character_size(text, at);
  return at;
}

std::u32string to_characters(std::string_view text) {
  std::u32string characters;
  for (size_t at = 0; at < text.size();) {
    const Decoded decoded = decode_char(text.data() + at);
    characters += decoded.code;
    at += decoded.size;
  }
  return characters;
}

std::string from_characters(std::u32string_view characters) {
  std::string text;
  for (const char32_t c : characters) append_utf8(text, c);
  return text;
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> characters) {
  const std::u32string set = characters ? to_characters(*characters) : std::u32string();
  const auto goes = [&](char32_t c) {
    return characters ? set.find(c) != std::u32string::npos : is_space(c);
  };
  if (side != Side::kRight) {
    while (!text.empty()) {
      const Decoded first = decode_char(text.data());
      if (!goes(first.code)) break;
      text.remove_prefix(first.size);
    }
  }
  if (side != Side::kLeft) {
    while (!text.empty()) {
      const Decoded last = decode_last_char(text);
      if (!goes(last.code)) break;
      text.remove_suffix(last.size);
    }
  }
  return text;
}

namespace {

std::vector<std::string_view> split_blank(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = strip(text, Side::kLeft);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(strip(text, Side::kRight));
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const Decoded next = decode_char(text.data() + end);
      if (is_space(next.code)) break;
      end += next.size;
    }
    parts.push_back(text.substr(0, end));
    text = strip(text.substr(end), Side::kLeft);
  }
  return parts;
}

std::vector<std::string_view> split_blank_right(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = strip(text, Side::kRight);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(strip(text, Side::kLeft));
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const Decoded last = decode_last_char(text.substr(0, begin));
      if (is_space(last.code)) break;
      begin -= last.size;
    }
    parts.push_back(text.substr(begin));
    text = strip(text.substr(0, begin), Side::kRight);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::vector<std::string_view> split_text(std::string_view text,
                                         std::optional<std::string_view> separator, int64_t limit) {
  if (!separator) return split_blank(text, limit);
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = text.find(*separator);
    if (at == text.npos) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> split_text_right(std::string_view text,
                                               std::optional<std::string_view> separator,
                                               int64_t limit) {
  if (!separator) return split_blank_right(text, limit);
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = text.rfind(*separator);
    if (at == text.npos) break;
    parts.push_back(text.substr(at + separator->size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  const auto ends_line = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Decoded decoded = decode_char(text.data() + at);
    const size_t end = at;
    at += decoded.size;
    if (!ends_line(decoded.code)) continue;
    if (decoded.code == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

size_t count_occurrences(std::string_view text, std::string_view part) {
  if (part.empty()) return count_characters(text) + 1;
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

std::string replace_text(std::string_view text, std::string_view old, std::string_view replacement,
                         int64_t limit) {
  std::string result;
  int64_t done = 0;
  size_t at = 0;
  const auto may = [&] { return limit < 0 || done < limit; };
  if (old.empty()) {
    while (may()) {
      result += replacement;
      ++done;
      if (at >= text.size()) break;
      const size_t size = character_size(text, at);
      result += text.substr(at, size);
      at += size;
    }
    return result += text.substr(at);
  }
  while (may()) {
    const size_t found = text.find(old, at);
    if (found == text.npos) break;
    result += text.substr(at, found - at);
    result += replacement;
    at = found + old.size();
    ++done;
  }
  return result += text.substr(at);
}

}  // namespace qianli::text::jinja
