#include "qianli/text/regex_class.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

#include "qianli/text/unicode.h"

namespace qianli::text {

const std::string_view kSpaceMembers =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
const std::string_view kNonSpaceMembers =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

void CharSet::add(const CharSet& other) {
  members_ += other.members_;
  expressions_.insert(expressions_.end(), other.expressions_.begin(), other.expressions_.end());
}

std::string CharSet::write(bool negated) const {
  const std::string any = "(?s:.)";
  if (expressions_.empty()) return fmt::format("[{}{}]", negated ? "^" : "", members_);
  std::string choice;
  for (const std::string& expression : expressions_) {
    if (!choice.empty()) choice += '|';
    choice += expression;
  }
  if (negated) {
    return fmt::format("(?:(?!{}){})", choice, members_.empty() ? any : "[^" + members_ + "]");
  }
  return members_.empty() ? fmt::format("(?:{})", choice)
                          : fmt::format("(?:[{}]|{})", members_, choice);
}

const std::string& word_members() {
  static const std::string members =
      R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})" +
      newer_characters("L") + newer_characters("M") + newer_characters("Nd");
  return members;
}

namespace {

// Lower case that is no letter of category Ll, since Unicode 15.
constexpr std::string_view kNewerLowercase =
    R"(\x{10fc}\x{a7f2}-\x{a7f4}\x{ab69}\x{1e030}-\x{1e06d})";

// Alphabetic without being a letter or a letter number, since Unicode 15.
constexpr std::string_view kNewerAlphabeticMarks =
    R"(\x{363}-\x{36f}\x{897}\x{c04}\x{cf3}\x{f82}\x{f83}\x{1dd3}-\x{1de6}\x{10d69}\x{10efc})"
    R"(\x{11080}\x{11081}\x{11241}\x{113b8}-\x{113c0}\x{113c2}\x{113c5}\x{113c7}-\x{113ca})"
    R"(\x{113cc}\x{113cd}\x{11f00}\x{11f01}\x{11f03}\x{11f34}-\x{11f3a}\x{11f3e}-\x{11f40})"
    R"(\x{1e08f})";

// Characters that Unicode 15 and 16 gave to a script.
struct NewerOfScript {
  std::string_view script, members;
};
constexpr NewerOfScript kNewerOfScripts[] = {
    {"Han", R"(\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})"},
    {"Hiragana", R"(\x{1b132})"},
    {"Katakana", R"(\x{1b155})"},
    {"Latin", R"(\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{1df25}-\x{1df2a})"},
    {"Cyrillic", R"(\x{1c89}\x{1c8a}\x{1e030}-\x{1e06d}\x{1e08f})"},
    {"Arabic", R"(\x{897}\x{10ec2}-\x{10ec4}\x{10efc}-\x{10eff})"},
    {"Devanagari", R"(\x{11b00}-\x{11b09})"},
    {"Lao", R"(\x{ece})"},
    {"Myanmar", R"(\x{116d0}-\x{116e3})"},
};

std::string script_members(std::string_view name) {
  // Without "sc:" PCRE2 takes characters that other scripts share, too.
  std::string members = fmt::format("\\p{{sc:{}}}", name);
  for (const NewerOfScript& newer : kNewerOfScripts) {
    if (newer.script == name) members += newer.members;
  }
  return members;
}

// PCRE2's tables may end with Unicode 14, the reference's with 16.
std::string category_members(std::string_view name) {
  return fmt::format("\\p{{{}}}{}{}", name, newer_characters(name),
                     name == "Cf" ? "\\x{13439}-\\x{1343f}" : "");
}

std::string alphabetic_members() {
  return "\\p{Alphabetic}" + newer_characters("L") + newer_characters("Nl") +
         std::string(kNewerAlphabeticMarks);
}

}  // namespace

const std::string& assigned_members() {
  static const std::string members = [] {
    std::string all;
    for (const char* name : {"L", "M", "N", "P", "S", "Z"}) all += category_members(name);
    return all;
  }();
  return members;
}

std::optional<std::string> property_members(std::string_view name) {
  constexpr std::string_view kCategories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc",
                                              "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                              "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So",
                                              "Z",  "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs"};
  if (std::ranges::find(kCategories, name) != std::end(kCategories)) return category_members(name);
  if (name == "Any") return "\\x{0}-\\x{10ffff}";
  // These two are not quite [:word:] and [:punct:], which has the symbols, too.
  if (name == "Word") return word_members();
  if (name == "Punct") return category_members("P");
  if (auto posix = posix_members(name)) return posix;
  const bool word = name.size() > 2 && std::ranges::all_of(name, [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
                    });
  return word ? std::optional(script_members(name)) : std::nullopt;
}

std::optional<std::string> posix_members(std::string_view given) {
  std::string name(given);
  for (char& c : name) c = static_cast<char>(c | 0x20);
  // Without the numbers \xb2 and the like, which \w has.
  if (name == "word") {
    return alphabetic_members() + category_members("M") + category_members("Nd") + "\\p{Pc}";
  }
  if (name == "space") return std::string(kSpaceMembers);
  if (name == "digit") return category_members("Nd");
  if (name == "xdigit") return "0-9a-fA-F";
  if (name == "alpha") return alphabetic_members();
  if (name == "alnum") return alphabetic_members() + category_members("Nd");
  if (name == "blank") return "\\x{9}\\p{Zs}";
  if (name == "cntrl") return "\\p{Cc}";
  if (name == "punct") return category_members("P") + category_members("S");
  if (name == "upper") return "\\p{Uppercase}" + newer_characters("Lu");
  if (name == "lower")
    return "\\p{Lowercase}" + newer_characters("Ll") + std::string(kNewerLowercase);
  return std::nullopt;
}

}  // namespace qianli::text
