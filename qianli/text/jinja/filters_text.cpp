// Filters of texts. Meaning and defaults are those of jinja2 3.1 with autoescape off.
#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

// Characters one by one through tables: dearer than copying.
std::string slow_text(const Bound& a) {
  std::string text = a.text(0);
  a.meter().step(text.size() / 4);
  return text;
}

Value upper_filter(const Bound& a) { return a.like(0, upper(slow_text(a))); }
Value lower_filter(const Bound& a) { return a.like(0, lower(slow_text(a))); }
Value capitalize_filter(const Bound& a) { return a.like(0, capitalize(slow_text(a))); }
Value title_of(const Bound& a) { return a.like(0, title_filter(slow_text(a))); }

Value trim(const Bound& a) {
  const std::string text = a.text(0);
  const bool all = !a.is_set(1);
  return a.like(
      0, std::string(all ? strip(text, Side::kBoth) : strip(text, Side::kBoth, a.string(1))));
}

Value replace(const Bound& a) {
  const std::string text = a.text(0), old = a.text(1), replacement = a.text(2);
  const size_t places = count_occurrences(text, old);
  a.meter().work(text.size());
  a.meter().expect(text.size() + places);
  if (!replacement.empty() && places > (size_t{1} << 40) / replacement.size()) {
    throw TemplateError("the template needs too much memory");
  }
  a.meter().expect(places * replacement.size());
  return Value::string(a.meter(), replace_text(text, old, replacement, a.integer_or(3, -1)));
}

std::string repeated(const Bound& a, std::string_view text, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (count > size_t{1} << 32) throw TemplateError("the template needs too much memory");
  a.meter().expect(count * text.size());
  std::string result;
  for (size_t i = 0; i < count; ++i) result += text;
  return result;
}

Value indent(const Bound& a) {
  const std::string& text = a.string(0);
  const bool first = a.truth_or(2, false), blank = a.truth_or(3, false);
  std::string margin;
  if (a.has(1) && a[1].is_string())
    margin = a.string(1);
  else
    margin = repeated(a, " ", a.has(1) ? a.integer(1) : 4);
  const std::string ended = text + "\n";
  const auto lines = split_lines(ended, false);
  a.meter().expect(text.size() + lines.size() * (margin.size() + 1));
  std::string result;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result += "\n";
    if (i == 0 ? first : blank || !lines[i].empty()) result += margin;
    result += lines[i];
  }
  return a.like(0, std::move(result));
}

Value center(const Bound& a) {
  const std::string text = a.text(0);
  const int64_t total = a.integer_or(1, 80) - static_cast<int64_t>(count_characters(text));
  if (total <= 0) return a.like(0, text);
  // CPython puts the odd blank to the left where the width is odd.
  const int64_t left = total / 2 + (total & a.integer_or(1, 80) & 1);
  return a.like(0, repeated(a, " ", left) + text + repeated(a, " ", total - left));
}

Value truncate(const Bound& a) {
  const int64_t limit = a.integer_or(1, 255), leeway = a.integer_or(4, 5);
  const std::string end = a.text_or(3, "...");
  const int64_t kept = limit - static_cast<int64_t>(count_characters(end));
  if (kept < 0 || leeway < 0)
    throw TemplateError("truncate() expects a length that its end fits into");
  if (length(a[0]) <= limit + leeway) return a[0];
  const std::string& text = a.string(0);
  const std::string cut = text.substr(0, byte_offset(text, static_cast<size_t>(kept)));
  if (a.truth_or(2, false)) return Value::string(a.meter(), cut + end);
  return Value::string(a.meter(), std::string(split_text_right(cut, " ", 1)[0]) + end);
}

Value word_count(const Bound& a) {
  return Value::integer(static_cast<int64_t>(count_words(a.text(0))));
}

Value safe(const Bound& a) { return Value::string(a.meter(), a.text(0)).as_markup(); }

Value escape(const Bound& a) {
  if (a[0].is_markup()) return a[0];
  return Value::string(a.meter(), escape_html(a.text(0))).as_markup();
}

Value force_escape(const Bound& a) {
  return Value::string(a.meter(), escape_html(a.text(0))).as_markup();
}

Value string(const Bound& a) { return to_string(a.meter(), a[0]); }

Value format(const Bound& a) {
  Meter& meter = a.meter();
  const Arguments& rest = a.rest();
  if (!rest.positional.empty() && !rest.named.empty()) {
    throw TemplateError("format() cannot handle positional and keyword arguments at the same time");
  }
  if (rest.named.empty()) {
    return Value::string(meter,
                         format_percent(meter, a.text(0), Value::tuple(meter, rest.positional)));
  }
  const auto dict = std::make_shared<DictObject>(meter);
  for (const auto& [name, value] : rest.named) dict->set(meter, Value::string(meter, name), value);
  return Value::string(meter, format_percent(meter, a.text(0), make_dict(dict)));
}

Value url_encode(const Bound& a) {
  Meter& meter = a.meter();
  if (a[0].is_string() || !is_iterable(a[0])) {
    return Value::string(meter, quote_url(a.text(0), false));
  }
  std::string result;
  const auto add = [&](const Value& key, const Value& value) {
    if (!result.empty()) result += '&';
    result += quote_url(to_text(meter, key), true) + '=' + quote_url(to_text(meter, value), true);
    meter.check_fits(result.size());
  };
  if (a[0].is(Kind::kDict)) {
    for (const auto& [key, value] : a[0].dict().entries) add(key, value);
    return Value::string(meter, std::move(result));
  }
  for (const Value& pair : to_items(meter, a[0])) {
    const auto parts = to_items(meter, pair);
    if (parts.size() != 2) throw TemplateError("urlencode() expects pairs");
    add(parts[0], parts[1]);
  }
  return Value::string(meter, std::move(result));
}

// indent: a number of blanks or a text, as json.dumps takes it.
JsonStyle json_style(const Bound& a) {
  JsonStyle style;
  style.ascii_only = a.truth_or(1, false);
  style.sort_keys = a.truth_or(4, false);
  if (a.is_set(2)) {
    style.indented = true;
    style.item_separator = ",";
    style.indent = a[2].is_string() ? a.string(2) : repeated(a, " ", a.integer(2));
  }
  if (!a.is_set(3)) return style;
  const auto separators = to_items(a.meter(), a[3]);
  if (separators.size() != 2) throw TemplateError("tojson() expects two separators");
  style.item_separator = to_text(a.meter(), separators[0]);
  style.key_separator = to_text(a.meter(), separators[1]);
  return style;
}

Value json_filter(const Bound& a) {
  return Value::string(a.meter(), to_json(a.meter(), a[0], json_style(a)));
}

constexpr Function kFilters[] = {
    {"upper", "value", upper_filter},
    {"lower", "value", lower_filter},
    {"capitalize", "value", capitalize_filter},
    {"title", "value", title_of},
    {"trim", "value,chars?", trim},
    {"replace", "s,old,new,count?", replace},
    {"indent", "s,width?,first?,blank?", indent},
    {"center", "value,width?", center},
    {"truncate", "s,length?,killwords?,end?,leeway?", truncate},
    {"wordcount", "s", word_count},
    {"safe", "value", safe},
    {"escape", "value", escape},
    {"e", "value", escape},
    {"forceescape", "value", force_escape},
    {"string", "value", string},
    {"format", "value,*", format},
    {"urlencode", "value", url_encode},
    {"tojson", "x,ensure_ascii?,indent?,separators?,sort_keys?", json_filter},
};

}  // namespace

FunctionTable text_filters() { return kFilters; }

}  // namespace qianli::text::jinja
