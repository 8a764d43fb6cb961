// Methods of mappings, lists and loops, and which values have which methods; global functions.
#include <algorithm>

#include "qianli/text/jinja/evaluator.h"
#include "qianli/text/jinja/runtime.h"

namespace qianli::text::jinja {
namespace {

Value make_view(Meter& meter, const char* name, std::vector<Value> items) {
  auto list = std::make_shared<ListObject>(meter, std::move(items));
  list->view = name;
  return Value::of(Kind::kView, std::move(list));
}

Value dict_get(const Bound& a) {
  const Value* found = a[0].dict().find(a.meter(), a[1]);
  if (found) return *found;
  return a.has(2) ? a[2] : Value::none();
}

Value dict_keys(const Bound& a) {
  std::vector<Value> items;
  for (const auto& [key, value] : a[0].dict().entries) items.push_back(key);
  return make_view(a.meter(), "dict_keys", std::move(items));
}

Value dict_values(const Bound& a) {
  std::vector<Value> items;
  for (const auto& [key, value] : a[0].dict().entries) items.push_back(value);
  return make_view(a.meter(), "dict_values", std::move(items));
}

Value dict_items(const Bound& a) {
  std::vector<Value> items;
  for (const auto& [key, value] : a[0].dict().entries) {
    items.push_back(Value::tuple(a.meter(), {key, value}));
  }
  return make_view(a.meter(), "dict_items", std::move(items));
}

// Values do not change, so a copy is the value.
Value copy(const Bound& a) { return a[0]; }

Value list_index(const Bound& a) {
  const auto& items = a[0].items();
  const auto size = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t index, int64_t otherwise) {
    const int64_t value = a.integer_or(index, otherwise);
    return std::clamp<int64_t>(value < 0 ? value + size : value, 0, size);
  };
  for (int64_t i = bound(2, 0); i < bound(3, size); ++i) {
    if (equal(a.meter(), items[static_cast<size_t>(i)], a[1])) return Value::integer(i);
  }
  throw TemplateError(to_repr(a.meter(), a[1]) + " is not in list");
}

Value list_count(const Bound& a) {
  int64_t count = 0;
  for (const Value& item : a[0].items()) count += equal(a.meter(), item, a[1]) ? 1 : 0;
  return Value::integer(count);
}

Value loop_cycle(const Bound& a) {
  const auto& items = a.rest().positional;
  if (items.empty()) throw TemplateError("no items for cycling given");
  const auto& state = a[0].get<LoopState>();
  return items[static_cast<size_t>(state.index0) % items.size()];
}

Value loop_changed(const Bound& a) {
  auto& state = const_cast<LoopState&>(a[0].get<LoopState>());
  Value values = Value::tuple(a.meter(), a.rest().positional);
  if (!state.changed.is_missing() && equal(a.meter(), state.changed, values))
    return Value::boolean(false);
  state.changed = std::move(values);
  return Value::boolean(true);
}

constexpr Function kDictMethods[] = {
    {"get", "self,key,default?", dict_get},
    {"keys", "self", dict_keys},
    {"values", "self", dict_values},
    {"items", "self", dict_items},
    {"copy", "self", copy},
};
constexpr Function kListMethods[] = {
    {"index", "self,value,start?,stop?", list_index},
    {"count", "self,value", list_count},
    {"copy", "self", copy},  // not of tuples
};
constexpr Function kLoopMethods[] = {
    {"cycle", "self,*", loop_cycle},
    {"changed", "self,*", loop_changed},
};

Value range(const Bound& a) {
  if (a.is_set(2) && a.integer(2) == 0)
    throw TemplateError("range() expects a step other than zero");
  const bool one = !a.has(1);
  const int64_t start = one ? 0 : a.integer(0), stop = one ? a.integer(0) : a.integer(1);
  return Value::of(Kind::kRange, std::make_shared<RangeObject>(a.meter(), start, stop,
                                                               a.has(2) ? a.integer(2) : 1));
}

// dict(mapping or pairs, **named) as a list of entries.
std::shared_ptr<DictObject> dict_of(const Bound& a) {
  Meter& meter = a.meter();
  const auto dict = std::make_shared<DictObject>(meter);
  const auto& positional = a.rest().positional;
  if (positional.size() > 1) throw TemplateError("dict() expects at most one argument");
  if (positional.size() == 1 && positional[0].is(Kind::kDict)) {
    for (const auto& [key, value] : positional[0].dict().entries) dict->set(meter, key, value);
  } else if (positional.size() == 1) {
    for (const Value& pair : to_items(meter, positional[0])) {
      std::vector<Value> parts = to_items(meter, pair);
      if (parts.size() != 2) throw TemplateError("dict() expects pairs");
      dict->set(meter, std::move(parts[0]), std::move(parts[1]));
    }
  }
  for (const auto& [name, value] : a.rest().named)
    dict->set(meter, Value::string(meter, name), value);
  return dict;
}

Value dict(const Bound& a) { return make_dict(dict_of(a)); }

Value make_namespace(const Bound& a) {
  std::vector<std::pair<std::string, Value>> attributes;
  const auto dict = dict_of(a);
  for (const auto& [key, value] : dict->entries) {
    if (!key.is_string()) throw TemplateError("namespace() expects names that are texts");
    attributes.emplace_back(key.text(), value);
  }
  return a.runtime().make_namespace(std::move(attributes));
}

Value raise_exception(const Bound& a) { throw Refusal(a.text(0)); }

Value strftime_now(const Bound& a) {
  const std::string& format = a.string(0);
  if (format.size() > 4096) throw TemplateError("strftime_now() expects a short format");
  if (format.empty()) return Value::string(a.meter(), "");
  std::string text(format.size() * 16 + 256, '\0');
  text.resize(std::strftime(text.data(), text.size(), format.c_str(), &a.runtime().now()));
  return Value::string(a.meter(), std::move(text));
}

constexpr Function kGlobals[] = {
    {"range", "start,stop?,step?", range},    {"dict", "*", dict},
    {"namespace", "*", make_namespace},       {"raise_exception", "message", raise_exception},
    {"strftime_now", "format", strftime_now},
};

}  // namespace

const Function* find_method(const Value& self, std::string_view name) {
  switch (self.kind()) {
    case Kind::kString:
      return find_in(string_methods(), name);
    case Kind::kDict:
      return find_in(kDictMethods, name);
    case Kind::kList:
      return find_in(kListMethods, name);
    case Kind::kTuple:
      return find_in(FunctionTable(kListMethods).first(2), name);
    case Kind::kLoop:
      return find_in(kLoopMethods, name);
    default:
      return nullptr;
  }
}

const Function* find_global(std::string_view name) { return find_in(kGlobals, name); }

}  // namespace qianli::text::jinja
