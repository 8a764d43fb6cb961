// Attributes, items and slices.
#include <algorithm>

#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

// The methods of Python's containers that change them; the sandbox of transformers hides them.
bool is_forbidden(const Value& object, std::string_view name) {
  constexpr std::string_view kOfLists[] = {"append", "clear", "pop",    "reverse",
                                           "insert", "sort",  "extend", "remove"};
  constexpr std::string_view kOfDicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto has = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return (object.is(Kind::kList) && has(kOfLists)) || (object.is(Kind::kDict) && has(kOfDicts));
}

const Value* namespace_attribute(const Value& object, std::string_view name) {
  for (const auto& [key, value] : object.get<NamespaceObject>().attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

Value group_attribute(const Value& object, std::string_view name) {
  if (!object.is(Kind::kTuple) || !object.get<ListObject>().is_group) return {};
  if (name == "grouper") return object.items()[0];
  return name == "list" ? object.items()[1] : Value();
}

// What getattr() would find; missing otherwise.
Value own_attribute(Meter& meter, const Value& object, std::string_view name) {
  if (object.is(Kind::kNamespace)) {
    const Value* found = namespace_attribute(object, name);
    return found ? *found : Value();
  }
  if (object.is(Kind::kLoop)) return loop_attribute(meter, object, name);
  if (object.is(Kind::kMacro)) return macro_attribute(meter, object, name);
  if (Value member = group_attribute(object, name); !member.is_missing()) return member;
  if (is_forbidden(object, name)) {
    return Value::undefined(meter, "'" + type_name(object) + "." + std::string(name) +
                                       "' changes its object, which templates may not do");
  }
  const Function* method = find_method(object, name);
  return method ? make_function(meter, *method, object) : Value();
}

Value no_attribute(Meter& meter, const Value& object, std::string_view name) {
  return Value::undefined(
      meter, "'" + type_name(object) + " object' has no attribute '" + std::string(name) + "'");
}

[[noreturn]] void refuse_undefined(const Value& object) { throw TemplateError(object.text()); }

// The item or missing.
Value own_item(Meter& meter, const Value& object, const Value& key) {
  if (object.is(Kind::kDict)) {
    const Value* found = object.dict().find(meter, key);
    return found ? *found : Value();
  }
  const bool indexed = object.is_string() || object.is(Kind::kList) || object.is(Kind::kTuple) ||
                       object.is(Kind::kRange);
  if (!indexed || !key.is_integral()) return {};
  const int64_t size = length(object);
  const int64_t index = key.as_integer() < 0 ? key.as_integer() + size : key.as_integer();
  if (index < 0 || index >= size) return {};
  if (object.is(Kind::kRange)) {
    return Value::integer(object.range().start + index * object.range().step);
  }
  if (!object.is_string()) return object.items()[static_cast<size_t>(index)];
  const std::string& text = object.text();
  meter.work(text.size());
  const bool ascii = object.characters() == text.size();
  const size_t at =
      ascii ? static_cast<size_t>(index) : byte_offset(text, static_cast<size_t>(index));
  return Value::string(meter, text.substr(at, character_size(text, at)));
}

int64_t slice_bound(const Value& bound, int64_t otherwise) {
  if (bound.is_missing() || bound.is_none()) return otherwise;
  if (bound.is_undefined()) refuse_undefined(bound);
  if (!bound.is_integral()) throw TemplateError("slice indices must be integers");
  return bound.as_integer();
}

struct Slice {
  int64_t start, count, step;
};

// Python's slice.indices.
Slice resolve_slice(int64_t size, const Value& start, const Value& stop, const Value& step_value) {
  const int64_t step = slice_bound(step_value, 1);
  if (step == 0) throw TemplateError("slice step cannot be zero");
  const int64_t lowest = step < 0 ? -1 : 0, highest = step < 0 ? size - 1 : size;
  const auto clip = [&](int64_t bound) {
    if (bound < 0) bound += size;
    return std::clamp(bound, lowest, std::max(lowest, highest));
  };
  const auto place = [&](const Value& bound, int64_t otherwise) {
    return bound.is_missing() || bound.is_none() ? otherwise : clip(slice_bound(bound, 0));
  };
  const int64_t first = place(start, step < 0 ? highest : lowest);
  const int64_t end = place(stop, step < 0 ? lowest : highest);
  const auto span = static_cast<__int128>(end) - first;
  const __int128 count = step > 0 ? (span + step - 1) / step : (span + step + 1) / step;
  return {first, count > 0 ? static_cast<int64_t>(count) : 0, step};
}

Value slice_range(Meter& meter, const RangeObject& range, const Slice& slice) {
  int64_t first = 0, by = 0, stop = 0;
  if (__builtin_mul_overflow(slice.start, range.step, &first) ||
      __builtin_add_overflow(first, range.start, &first) ||
      __builtin_mul_overflow(range.step, slice.step, &by) ||
      __builtin_mul_overflow(slice.count, by, &stop) ||
      __builtin_add_overflow(first, stop, &stop)) {
    throw TemplateError("an integer of more than 64 bits");
  }
  return Value::of(Kind::kRange, std::make_shared<RangeObject>(meter, first, stop, by));
}

std::string slice_text(const std::string& text, bool ascii, const Slice& slice) {
  std::string result;
  if (ascii && slice.step == 1) {
    return text.substr(static_cast<size_t>(slice.start), static_cast<size_t>(slice.count));
  }
  const std::u32string characters = to_characters(text);
  std::u32string taken;
  for (int64_t i = 0; i < slice.count; ++i) {
    taken += characters[static_cast<size_t>(slice.start + i * slice.step)];
  }
  return from_characters(taken);
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  Meter& meter = runtime.meter();
  if (object.is_undefined()) refuse_undefined(object);
  if (Value own = own_attribute(meter, object, name); !own.is_missing()) return own;
  if (object.is(Kind::kDict)) {
    if (const Value* found = object.dict().find(name)) return *found;
  }
  return no_attribute(meter, object, name);
}

Value get_item(Runtime& runtime, const Value& object, const Value& key) {
  Meter& meter = runtime.meter();
  if (object.is_undefined()) refuse_undefined(object);
  const bool hashable = !key.is(Kind::kList) && !key.is(Kind::kDict) && !key.is(Kind::kView);
  if (Value item = hashable ? own_item(meter, object, key) : Value(); !item.is_missing())
    return item;
  if (!key.is_string()) {
    return Value::undefined(
        meter, "'" + type_name(object) + " object' has no element " + to_repr(meter, key));
  }
  Value own = own_attribute(meter, object, key.text());
  return own.is_missing() ? no_attribute(meter, object, key.text()) : own;
}

Value get_slice(Meter& meter, const Value& object, const Value& start, const Value& stop,
                const Value& step) {
  if (object.is_undefined()) refuse_undefined(object);
  const bool list = object.is(Kind::kList) || object.is(Kind::kTuple);
  if (!list && !object.is_string() && !object.is(Kind::kRange)) {
    throw TemplateError("'" + type_name(object) + "' object cannot be sliced");
  }
  const Slice slice = resolve_slice(length(object), start, stop, step);
  if (object.is(Kind::kRange)) {
    return slice_range(meter, object.range(), slice);
  }
  if (object.is_string()) {
    const std::string& text = object.text();
    meter.work(text.size());
    const Value result =
        Value::string(meter, slice_text(text, object.characters() == text.size(), slice));
    return object.is_markup() ? result.as_markup() : result;
  }
  std::vector<Value> items;
  meter.step(static_cast<uint64_t>(slice.count));
  for (int64_t i = 0; i < slice.count; ++i) {
    items.push_back(object.items()[static_cast<size_t>(slice.start + i * slice.step)]);
  }
  return object.is(Kind::kList) ? Value::list(meter, std::move(items))
                                : Value::tuple(meter, std::move(items));
}

void set_attribute(Meter& meter, const Value& space, const std::string& name, Value value) {
  if (!space.is(Kind::kNamespace)) {
    throw TemplateError("cannot assign attribute on non-namespace object");
  }
  meter.step();
  // The rendering made every namespace and may change it.
  auto& object = const_cast<NamespaceObject&>(space.get<NamespaceObject>());
  for (auto& [key, known] : object.attributes) {
    if (key == name) {
      known = std::move(value);
      return;
    }
  }
  object.charge.add(name.size() + sizeof(Value) + sizeof(std::string));
  object.attributes.emplace_back(name, std::move(value));
}

}  // namespace qianli::text::jinja
