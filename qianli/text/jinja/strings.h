// Python's str methods over valid UTF-8. Positions and lengths count characters (code points).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text::jinja {

size_t count_characters(std::string_view text);
// Bytes of the character at byte `at`.
size_t character_size(std::string_view text, size_t at);
// Byte offset of character `index`, or the size where there are fewer.
size_t byte_offset(std::string_view text, size_t index);
std::u32string to_characters(std::string_view text);
std::string from_characters(std::u32string_view characters);

bool is_space(char32_t character);  // str.isspace
enum class Side { kLeft, kRight, kBoth };
// Without `characters`: white space.
std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> characters = {});

// At most `limit` cuts where limit >= 0. Without a separator at runs of white space.
std::vector<std::string_view> split_text(std::string_view text,
                                         std::optional<std::string_view> separator, int64_t limit);
std::vector<std::string_view> split_text_right(std::string_view text,
                                               std::optional<std::string_view> separator,
                                               int64_t limit);
// At Python's line boundaries, which are more than \n.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

size_t count_occurrences(std::string_view text, std::string_view part);
// limit < 0: all. An empty `old` stands between all characters.
std::string replace_text(std::string_view text, std::string_view old, std::string_view replacement,
                         int64_t limit);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title
std::string title_filter(
    std::string_view text);  // jinja2's filter: words after blanks and brackets
std::string swap_case(std::string_view text);
std::string case_fold(std::string_view text);

// str.isalpha and the like, by name: "isupper", "isdigit", ...; empty where there is none.
std::optional<bool> classify(std::string_view method, std::string_view text);
// A letter or _ first, then also digits.
bool is_identifier_start(char32_t character);
bool is_identifier_part(char32_t character);
size_t count_words(std::string_view text);  // runs of \w

std::string quote(std::string_view text);  // repr()
std::string quote_json(std::string_view text, bool ascii_only);
std::string escape_html(std::string_view text);
std::string quote_url(std::string_view text, bool for_query);

std::string real_text(double value);  // repr(float)

}  // namespace qianli::text::jinja
