// Filters of lists and mappings.
#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "qianli/text/jinja/pick.h"
#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {

AttributePath::AttributePath(Runtime& runtime, const Value& attribute) {
  if (attribute.is_missing() || attribute.is_none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  for (const std::string_view part : split_text(attribute.text(), ".", -1)) {
    const bool digits =
        !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
    parts_.push_back(digits ? Value::integer(std::stoll(std::string(part)))
                            : Value::string(runtime.meter(), std::string(part)));
  }
}

Value AttributePath::of(Runtime& runtime, Value item, const Value& otherwise) const {
  for (const Value& part : parts_) {
    item = get_item(runtime, item, part);
    if (item.is_undefined() && !otherwise.is_missing() && !otherwise.is_none()) item = otherwise;
  }
  return item;
}

namespace {

Value lowered(Meter& meter, Value value, bool case_sensitive) {
  if (case_sensitive || !value.is_string()) return value;
  return Value::string(meter, lower(value.text()));
}

// Sorts by keys, equal ones in their order, as sorted(key=, reverse=) does.
std::vector<Value> sorted(Meter& meter, std::vector<Value> items, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return reverse ? less(meter, keys[b], keys[a]) : less(meter, keys[a], keys[b]);
  });
  std::vector<Value> result;
  for (const size_t i : order) result.push_back(std::move(items[i]));
  return result;
}

Value length_filter(const Bound& a) { return Value::integer(length(a[0])); }
Value list_filter(const Bound& a) { return Value::list(a.meter(), to_items(a.meter(), a[0])); }

Value first(const Bound& a) {
  Value item;
  if (Cursor(a[0]).next(a.meter(), item)) return item;
  return Value::undefined(a.meter(), "No first item, sequence was empty.");
}

Value last(const Bound& a) {
  if (a[0].is(Kind::kIterator)) throw TemplateError("'generator' object is not reversible");
  std::vector<Value> items = to_items(a.meter(), a[0]);
  if (!items.empty()) return items.back();
  return Value::undefined(a.meter(), "No last item, sequence was empty.");
}

Value reverse(const Bound& a) {
  std::vector<Value> items = to_items(a.meter(), a[0]);
  std::reverse(items.begin(), items.end());
  if (a[0].is_string()) {
    std::string text;
    for (const Value& item : items) text += item.text();
    return a.like(0, std::move(text));
  }
  return a[0].is(Kind::kIterator) ? Value::list(a.meter(), std::move(items))
                                  : Value::iterator(a.meter(), std::move(items));
}

Value join(const Bound& a) {
  const std::string separator = a.text_or(1, "");
  const AttributePath path(a.runtime(), a[2]);
  std::string text;
  bool begun = false;
  Value item;
  for (Cursor cursor(a[0]); cursor.next(a.meter(), item);) {
    if (begun) text += separator;
    begun = true;
    text += to_text(a.meter(), path.of(a.runtime(), item));
    a.meter().work(separator.size());
    a.meter().check_fits(text.size());
  }
  return Value::string(a.meter(), std::move(text));
}

Value items(const Bound& a) {
  std::vector<Value> pairs;
  if (a[0].is_undefined()) return Value::iterator(a.meter(), {});
  if (!a[0].is(Kind::kDict))
    throw TemplateError("items() expects a mapping, got '" + type_name(a[0]) + "'");
  for (const auto& [key, value] : a[0].dict().entries) {
    pairs.push_back(Value::tuple(a.meter(), {key, value}));
  }
  return Value::iterator(a.meter(), std::move(pairs));
}

const DictObject& mapping(const Bound& a) {
  if (a[0].is_undefined()) throw TemplateError(a[0].text());
  if (!a[0].is(Kind::kDict)) {
    throw TemplateError(std::string(a.function().name) + "() expects a mapping, got '" +
                        type_name(a[0]) + "'");
  }
  return a[0].dict();
}

Value dict_sort(const Bound& a) {
  const std::string by = a.text_or(2, "key");
  if (by != "key" && by != "value") throw TemplateError("dictsort() can sort by 'key' or 'value'");
  std::vector<Value> pairs, keys;
  for (const auto& [key, value] : mapping(a).entries) {
    pairs.push_back(Value::tuple(a.meter(), {key, value}));
    keys.push_back(lowered(a.meter(), by == "key" ? key : value, a.truth_or(1, false)));
  }
  return Value::list(a.meter(), sorted(a.meter(), std::move(pairs), keys, a.truth_or(3, false)));
}

Value sort(const Bound& a) {
  Meter& meter = a.meter();
  std::vector<AttributePath> paths;
  if (a.has(3) && a[3].is_string()) {
    for (const std::string_view part : split_text(a[3].text(), ",", -1)) {
      paths.emplace_back(a.runtime(), Value::string(meter, std::string(part)));
    }
  } else {
    paths.emplace_back(a.runtime(), a[3]);
  }
  std::vector<Value> values = to_items(meter, a[0]), keys;
  for (const Value& value : values) {
    std::vector<Value> key;
    for (const AttributePath& path : paths) {
      key.push_back(lowered(meter, path.of(a.runtime(), value), a.truth_or(2, false)));
    }
    keys.push_back(Value::list(meter, std::move(key)));
  }
  return Value::list(meter, sorted(meter, std::move(values), keys, a.truth_or(1, false)));
}

Value unique(const Bound& a) {
  Meter& meter = a.meter();
  const AttributePath path(a.runtime(), a[2]);
  const auto seen = std::make_shared<DictObject>(meter);
  std::vector<Value> result;
  Value item;
  for (Cursor cursor(a[0]); cursor.next(meter, item);) {
    Value key = lowered(meter, path.of(a.runtime(), item), a.truth_or(1, false));
    if (seen->find(meter, key)) continue;
    seen->set(meter, std::move(key), Value::none());
    result.push_back(item);
  }
  return Value::iterator(meter, std::move(result));
}

Value extreme(const Bound& a, bool largest) {
  Meter& meter = a.meter();
  const AttributePath path(a.runtime(), a[2]);
  Value item, best, best_key;
  for (Cursor cursor(a[0]); cursor.next(meter, item);) {
    Value key = lowered(meter, path.of(a.runtime(), item), a.truth_or(1, false));
    const bool better = best_key.is_missing() ||
                        (largest ? less(meter, best_key, key) : less(meter, key, best_key));
    if (!better) continue;
    best = item;
    best_key = std::move(key);
  }
  return best.is_missing() ? Value::undefined(meter, "No aggregated item, sequence was empty.")
                           : best;
}

Value min_filter(const Bound& a) { return extreme(a, false); }
Value max_filter(const Bound& a) { return extreme(a, true); }

Value sum(const Bound& a) {
  Value total = a.has(2) ? a[2] : Value::integer(0);
  if (total.is_string()) throw TemplateError("sum() cannot sum strings; use join");
  const AttributePath path(a.runtime(), a[1]);
  Value item;
  for (Cursor cursor(a[0]); cursor.next(a.meter(), item);) {
    total = binary(a.meter(), BinaryOperator::kAdd, total, path.of(a.runtime(), item));
  }
  return total;
}

// What fills up lists to a wished length may be asked for in any number.
void fill(Meter& meter, std::vector<Value>& items, const Value& value, int64_t count) {
  if (count <= 0) return;
  meter.step(static_cast<uint64_t>(count));
  meter.expect(static_cast<size_t>(std::min<int64_t>(count, int64_t{1} << 40)) * sizeof(Value));
  items.insert(items.end(), static_cast<size_t>(count), value);
}

Value batch(const Bound& a) {
  Meter& meter = a.meter();
  const int64_t size = a.integer(1);
  std::vector<Value> rows, row;
  Value item;
  for (Cursor cursor(a[0]); cursor.next(meter, item);) {
    if (static_cast<int64_t>(row.size()) == size) {
      rows.push_back(Value::list(meter, std::move(row)));
      row = {};
    }
    row.push_back(item);
  }
  if (!row.empty()) {
    if (a.is_set(2)) fill(meter, row, a[2], size - static_cast<int64_t>(row.size()));
    rows.push_back(Value::list(meter, std::move(row)));
  }
  return Value::iterator(meter, std::move(rows));
}

Value slice(const Bound& a) {
  Meter& meter = a.meter();
  const std::vector<Value> all = to_items(meter, a[0]);
  const int64_t slices = a.integer(1), size = static_cast<int64_t>(all.size());
  if (slices == 0) throw TemplateError("slice() into 0 parts");
  const int64_t each = slices > 0 ? size / slices : 0, longer = slices > 0 ? size % slices : 0;
  std::vector<Value> rows;
  int64_t begin = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t end = begin + each + (i < longer ? 1 : 0);
    std::vector<Value> row(all.begin() + begin, all.begin() + end);
    if (a.is_set(2) && i >= longer) row.push_back(a[2]);
    rows.push_back(Value::list(meter, std::move(row)));
    begin = end;
  }
  return Value::iterator(meter, std::move(rows));
}

Value make_group(Meter& meter, Value key, std::vector<Value> members) {
  auto pair = std::make_shared<ListObject>(
      meter, std::vector<Value>{std::move(key), Value::list(meter, std::move(members))});
  pair->is_group = true;
  return Value::of(Kind::kTuple, std::move(pair));
}

Value group_by(const Bound& a) {
  Meter& meter = a.meter();
  const AttributePath path(a.runtime(), a[1]);
  const bool case_sensitive = a.truth_or(3, false);
  const auto key_of = [&](const Value& item) { return path.of(a.runtime(), item, a[2]); };
  std::vector<Value> values = to_items(meter, a[0]), keys;
  for (const Value& value : values) keys.push_back(lowered(meter, key_of(value), case_sensitive));
  values = sorted(meter, std::move(values), keys, false);
  std::vector<Value> groups, members;
  Value key;
  const auto close = [&] {
    if (members.empty()) return;
    Value name = key_of(members[0]);
    groups.push_back(make_group(meter, std::move(name), std::move(members)));
    members = {};
  };
  for (const Value& value : values) {
    Value next = lowered(meter, key_of(value), case_sensitive);
    if (!members.empty() && !equal(meter, key, next)) close();
    key = std::move(next);
    members.push_back(value);
  }
  close();
  return Value::list(meter, std::move(groups));
}

constexpr Function kFilters[] = {
    {"length", "obj", length_filter},
    {"count", "obj", length_filter},
    {"list", "value", list_filter},
    {"first", "seq", first},
    {"last", "seq", last},
    {"reverse", "value", reverse},
    {"join", "value,d?,attribute?", join},
    {"items", "value", items},
    {"dictsort", "value,case_sensitive?,by?,reverse?", dict_sort},
    {"sort", "value,reverse?,case_sensitive?,attribute?", sort},
    {"unique", "value,case_sensitive?,attribute?", unique},
    {"min", "value,case_sensitive?,attribute?", min_filter},
    {"max", "value,case_sensitive?,attribute?", max_filter},
    {"sum", "iterable,attribute?,start?", sum},
    {"batch", "value,linecount,fill_with?", batch},
    {"slice", "value,slices,fill_with?", slice},
    {"groupby", "value,attribute,default?,case_sensitive?", group_by},
};

}  // namespace

FunctionTable list_filters() { return kFilters; }

}  // namespace qianli::text::jinja
