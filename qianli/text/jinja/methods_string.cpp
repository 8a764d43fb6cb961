// Methods of texts, as Python's str has them.
#include <algorithm>

#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

Value list_of(const Bound& a, const std::vector<std::string_view>& parts) {
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(a.like(0, std::string(part)));
  return Value::list(a.meter(), std::move(items));
}

// Characters one by one through tables: dearer than copying.
const std::string& slow_text(const Bound& a) {
  a.meter().step(a.string(0).size() / 4);
  return a.string(0);
}

Value upper_method(const Bound& a) { return a.like(0, upper(slow_text(a))); }
Value lower_method(const Bound& a) { return a.like(0, lower(slow_text(a))); }
Value title_method(const Bound& a) { return a.like(0, title(slow_text(a))); }
Value capitalize_method(const Bound& a) { return a.like(0, capitalize(slow_text(a))); }
Value swap_case_method(const Bound& a) { return a.like(0, swap_case(slow_text(a))); }
Value case_fold_method(const Bound& a) { return a.like(0, case_fold(slow_text(a))); }

template <Side side>
Value strip_method(const Bound& a) {
  const std::string& text = a.string(0);
  return a.like(0, std::string(a.is_set(1) ? strip(text, side, a.string(1)) : strip(text, side)));
}

std::optional<std::string_view> separator(const Bound& a) {
  if (!a.is_set(1)) return std::nullopt;
  if (a.string(1).empty()) throw TemplateError("empty separator");
  return a.string(1);
}

Value split(const Bound& a) {
  return list_of(a, split_text(a.string(0), separator(a), a.integer_or(2, -1)));
}
Value split_right(const Bound& a) {
  return list_of(a, split_text_right(a.string(0), separator(a), a.integer_or(2, -1)));
}
Value split_lines_method(const Bound& a) {
  return list_of(a, split_lines(a.string(0), a.truth_or(1, false)));
}

Value partition(const Bound& a, bool right) {
  if (a.string(1).empty()) throw TemplateError("empty separator");
  const std::string &text = a.string(0), &mark = a.string(1);
  const size_t at = right ? text.rfind(mark) : text.find(mark);
  const auto make = [&](std::string part) { return a.like(0, std::move(part)); };
  if (at == std::string::npos) {
    if (right) return Value::tuple(a.meter(), {make(""), make(""), make(text)});
    return Value::tuple(a.meter(), {make(text), make(""), make("")});
  }
  return Value::tuple(a.meter(),
                      {make(text.substr(0, at)), make(mark), make(text.substr(at + mark.size()))});
}
Value partition_left(const Bound& a) { return partition(a, false); }
Value partition_right(const Bound& a) { return partition(a, true); }

// The part of the text between the optional arguments 2 and 3, and where it begins, in characters.
struct Window {
  std::string_view text;
  int64_t begin;
  bool possible;  // false where start lies behind the end: not even "" is found there
};

Window window(const Bound& a) {
  const std::string& text = a.string(0);
  const auto size = static_cast<int64_t>(a[0].characters());
  const auto bound = [&](size_t index, int64_t otherwise) {
    if (!a.is_set(index)) return otherwise;
    const int64_t value = a.integer(index);
    return value < 0 ? std::max<int64_t>(value + size, 0) : value;
  };
  const int64_t begin = bound(2, 0), end = std::min(bound(3, size), size);
  if (begin > end) return {{}, begin, false};
  const size_t first = byte_offset(text, static_cast<size_t>(begin));
  const size_t stop = byte_offset(text, static_cast<size_t>(end));
  return {std::string_view(text).substr(first, stop - first), begin, true};
}

int64_t find_in_text(const Bound& a, bool right) {
  const Window where = window(a);
  const std::string& part = a.string(1);
  a.meter().work(where.text.size());
  if (!where.possible) return -1;
  const size_t at = right ? where.text.rfind(part) : where.text.find(part);
  if (at == where.text.npos) return -1;
  return where.begin + static_cast<int64_t>(count_characters(where.text.substr(0, at)));
}

Value found(int64_t at) {
  if (at < 0) throw TemplateError("substring not found");
  return Value::integer(at);
}
Value find_method_left(const Bound& a) { return Value::integer(find_in_text(a, false)); }
Value find_method_right(const Bound& a) { return Value::integer(find_in_text(a, true)); }
Value index_left(const Bound& a) { return found(find_in_text(a, false)); }
Value index_right(const Bound& a) { return found(find_in_text(a, true)); }

Value count(const Bound& a) {
  const Window where = window(a);
  if (!where.possible) return Value::integer(0);
  return Value::integer(static_cast<int64_t>(count_occurrences(where.text, a.string(1))));
}

// One text or a tuple of texts, at the start or the end.
Value has_end(const Bound& a, bool start) {
  const Window where = window(a);
  const auto matches = [&](const std::string& part) {
    return where.possible && (start ? where.text.starts_with(part) : where.text.ends_with(part));
  };
  if (!a[1].is(Kind::kTuple)) return Value::boolean(matches(a.string(1)));
  const auto& parts = a[1].items();
  return Value::boolean(std::any_of(parts.begin(), parts.end(), [&](const Value& part) {
    if (!part.is_string()) throw TemplateError("expected a text or a tuple of texts");
    return matches(part.text());
  }));
}
Value starts_with(const Bound& a) { return has_end(a, true); }
Value ends_with(const Bound& a) { return has_end(a, false); }

Value replace(const Bound& a) {
  const std::string &text = a.string(0), &old = a.string(1), &replacement = a.string(2);
  const size_t places = count_occurrences(text, old);
  a.meter().expect(text.size() + places);
  if (!replacement.empty() && places > (size_t{1} << 40) / replacement.size()) {
    throw TemplateError("the template needs too much memory");
  }
  a.meter().expect(places * replacement.size());
  return a.like(0, replace_text(text, old, replacement, a.integer_or(3, -1)));
}

Value join(const Bound& a) {
  std::string text;
  bool begun = false;
  Value item;
  for (Cursor cursor(a[1]); cursor.next(a.meter(), item);) {
    if (begun) text += a.string(0);
    begun = true;
    if (!item.is_string())
      throw TemplateError("join() expects texts, got '" + type_name(item) + "'");
    text += item.text();
    a.meter().work(item.text().size() + a.string(0).size());
    a.meter().check_fits(text.size());
  }
  return a.like(0, std::move(text));
}

Value format(const Bound& a) {
  return a.like(0, format_braces(a.runtime(), a.string(0), a.rest()));
}

std::string filled(const Bound& a, int64_t times) {
  const std::string fill = a.is_set(2) ? a.string(2) : " ";
  if (count_characters(fill) != 1) throw TemplateError("the fill character must be one character");
  if (times > int64_t{1} << 32) throw TemplateError("the template needs too much memory");
  a.meter().expect(static_cast<size_t>(times) * fill.size());
  std::string text;
  for (int64_t i = 0; i < times; ++i) text += fill;
  return text;
}

Value justify(const Bound& a) {
  const int64_t width = a.integer(1), total = width - static_cast<int64_t>(a[0].characters());
  if (total <= 0) return a[0];
  int64_t left = 0;
  if (a.function().name == "rjust") left = total;
  if (a.function().name == "center") left = total / 2 + (total & width & 1);
  return a.like(0, filled(a, left) + a.string(0) + filled(a, total - left));
}

Value zero_fill(const Bound& a) {
  const std::string& text = a.string(0);
  const int64_t total = a.integer(1) - static_cast<int64_t>(a[0].characters());
  if (total <= 0) return a[0];
  if (total > int64_t{1} << 32) throw TemplateError("the template needs too much memory");
  a.meter().expect(static_cast<size_t>(total));
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return a.like(
      0, text.substr(0, sign) + std::string(static_cast<size_t>(total), '0') + text.substr(sign));
}

Value remove_prefix(const Bound& a) {
  const std::string &text = a.string(0), &part = a.string(1);
  return a.like(0, text.starts_with(part) ? text.substr(part.size()) : text);
}
Value remove_suffix(const Bound& a) {
  const std::string &text = a.string(0), &part = a.string(1);
  return a.like(
      0, !part.empty() && text.ends_with(part) ? text.substr(0, text.size() - part.size()) : text);
}

Value is_class(const Bound& a) { return Value::boolean(*classify(a.function().name, a.string(0))); }

constexpr Function kMethods[] = {
    {"upper", "self", upper_method},
    {"lower", "self", lower_method},
    {"title", "self", title_method},
    {"capitalize", "self", capitalize_method},
    {"swapcase", "self", swap_case_method},
    {"casefold", "self", case_fold_method},
    {"strip", "self,chars?", strip_method<Side::kBoth>},
    {"lstrip", "self,chars?", strip_method<Side::kLeft>},
    {"rstrip", "self,chars?", strip_method<Side::kRight>},
    {"split", "self,sep?,maxsplit?", split},
    {"rsplit", "self,sep?,maxsplit?", split_right},
    {"splitlines", "self,keepends?", split_lines_method},
    {"partition", "self,sep", partition_left},
    {"rpartition", "self,sep", partition_right},
    {"find", "self,sub,start?,end?", find_method_left},
    {"rfind", "self,sub,start?,end?", find_method_right},
    {"index", "self,sub,start?,end?", index_left},
    {"rindex", "self,sub,start?,end?", index_right},
    {"count", "self,sub,start?,end?", count},
    {"startswith", "self,prefix,start?,end?", starts_with},
    {"endswith", "self,suffix,start?,end?", ends_with},
    {"replace", "self,old,new,count?", replace},
    {"join", "self,iterable", join},
    {"format", "self,*", format},
    {"ljust", "self,width,fillchar?", justify},
    {"rjust", "self,width,fillchar?", justify},
    {"center", "self,width,fillchar?", justify},
    {"zfill", "self,width", zero_fill},
    {"removeprefix", "self,prefix", remove_prefix},
    {"removesuffix", "self,suffix", remove_suffix},
    {"isupper", "self", is_class},
    {"islower", "self", is_class},
    {"istitle", "self", is_class},
    {"isalpha", "self", is_class},
    {"isalnum", "self", is_class},
    {"isdecimal", "self", is_class},
    {"isdigit", "self", is_class},
    {"isnumeric", "self", is_class},
    {"isspace", "self", is_class},
    {"isascii", "self", is_class},
    {"isidentifier", "self", is_class},
};

}  // namespace

FunctionTable string_methods() { return kMethods; }

}  // namespace qianli::text::jinja
