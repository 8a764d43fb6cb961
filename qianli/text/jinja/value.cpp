#include "qianli/text/jinja/value.h"

#include <algorithm>

#include "qianli/text/jinja/callable.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

int depth_over(const std::vector<Value>& items) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return depth + 1;
}

int64_t range_size(int64_t start, int64_t stop, int64_t step) {
  const auto span = static_cast<__int128>(stop) - start;
  const __int128 size = step > 0 ? (span + step - 1) / step : (span + step + 1) / step;
  // The same bound as jinja2's sandbox.
  constexpr int64_t kMaxRange = 100000;
  if (size > kMaxRange) throw TemplateError("a range of more than 100000 numbers");
  return size > 0 ? static_cast<int64_t>(size) : 0;
}

}  // namespace

// The object itself, its reference counts and the allocator's overhead.
constexpr size_t kObjectBytes = 112;

Object::Object(Meter& meter, size_t bytes, int nesting)
    : charge(meter, bytes + kObjectBytes), depth(nesting) {
  if (nesting > kMaxNesting) throw TemplateError("a value nests too deeply");
  meter.work(bytes);
}

StringObject::StringObject(Meter& meter, std::string value)
    : Object(meter, value.size(), 0), text(std::move(value)), characters(count_characters(text)) {}

ListObject::ListObject(Meter& meter, std::vector<Value> values)
    : Object(meter, values.size() * sizeof(Value), depth_over(values)), items(std::move(values)) {}

RangeObject::RangeObject(Meter& meter, int64_t first, int64_t end, int64_t by)
    : Object(meter, 0, 0), start(first), stop(end), step(by), size(range_size(first, end, by)) {}

IteratorObject::IteratorObject(Meter& meter, std::vector<Value> values)
    : Object(meter, values.size() * sizeof(Value), depth_over(values)), items(std::move(values)) {}

NamespaceObject::NamespaceObject(Meter& meter) : Object(meter, sizeof(NamespaceObject), 0) {}

Value Value::undefined(Meter& meter, std::string message) {
  return of(Kind::kUndefined, std::make_shared<StringObject>(meter, std::move(message)));
}

Value Value::boolean(bool value) {
  Value result(Kind::kBool);
  result.integer_ = value ? 1 : 0;
  return result;
}

Value Value::integer(int64_t value) {
  Value result(Kind::kInteger);
  result.integer_ = value;
  return result;
}

Value Value::real(double value) {
  Value result(Kind::kFloat);
  result.real_ = value;
  return result;
}

Value Value::of(Kind kind, std::shared_ptr<const Object> object) {
  Value result(kind);
  result.object_ = std::move(object);
  return result;
}

Value Value::string(Meter& meter, std::string text) {
  return of(Kind::kString, std::make_shared<StringObject>(meter, std::move(text)));
}

Value Value::list(Meter& meter, std::vector<Value> items) {
  return of(Kind::kList, std::make_shared<ListObject>(meter, std::move(items)));
}

Value Value::tuple(Meter& meter, std::vector<Value> items) {
  return of(Kind::kTuple, std::make_shared<ListObject>(meter, std::move(items)));
}

Value Value::iterator(Meter& meter, std::vector<Value> items) {
  return of(Kind::kIterator, std::make_shared<IteratorObject>(meter, std::move(items)));
}

Value Value::as_markup() const {
  Value result = *this;
  result.markup_ = true;
  return result;
}

const DictObject& Value::dict() const { return get<DictObject>(); }

Value make_dict(std::shared_ptr<DictObject> dict) {
  return Value::of(Kind::kDict, std::move(dict));
}

DictObject::DictObject(Meter& meter) : Object(meter, sizeof(DictObject), 1) {}

size_t DictObject::position(Meter& meter, const Value& key, size_t key_hash) const {
  const auto [begin, end] = places_.equal_range(key_hash);
  for (auto place = begin; place != end; ++place) {
    if (equal(meter, entries[place->second].first, key)) return place->second;
  }
  return entries.size();
}

const Value* DictObject::find(Meter& meter, const Value& key) const {
  const size_t at = position(meter, key, hash(meter, key));
  return at < entries.size() ? &entries[at].second : nullptr;
}

const Value* DictObject::find(std::string_view key) const {
  const auto [begin, end] = places_.equal_range(std::hash<std::string_view>{}(key));
  for (auto place = begin; place != end; ++place) {
    const auto& [known, value] = entries[place->second];
    if (known.is_string() && known.text() == key) return &value;
  }
  return nullptr;
}

void DictObject::set(Meter& meter, Value key, Value value) {
  const size_t key_hash = hash(meter, key);
  const size_t at = position(meter, key, key_hash);
  depth = std::max({depth, key.depth() + 1, value.depth() + 1});
  if (depth > kMaxNesting) throw TemplateError("a value nests too deeply");
  if (at < entries.size()) {
    entries[at].second = std::move(value);
    return;
  }
  charge.add(2 * sizeof(Value) + 4 * sizeof(size_t));
  places_.emplace(key_hash, entries.size());
  entries.emplace_back(std::move(key), std::move(value));
}

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInteger:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.is_markup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kView:
      return value.get<ListObject>().view;
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return "generator";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kFunction:
      return "function";
    case Kind::kMacro:
      return "Macro";
    case Kind::kLoop:
      return "LoopContext";
  }
  return "";
}

Cursor::Cursor(Value source) : source_(std::move(source)) {
  if (!is_iterable(source_)) {
    throw TemplateError("'" + type_name(source_) + "' object is not iterable");
  }
}

bool Cursor::next(Meter& meter, Value& item) {
  meter.step();
  switch (source_.kind()) {
    case Kind::kString: {
      const std::string& text = source_.text();
      if (at_ >= text.size()) return false;
      const size_t size = character_size(text, at_);
      item = Value::string(meter, text.substr(at_, size));
      at_ += size;
      return true;
    }
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      if (at_ >= source_.items().size()) return false;
      item = source_.items()[at_++];
      return true;
    case Kind::kDict:
      if (at_ >= source_.dict().entries.size()) return false;
      item = source_.dict().entries[at_++].first;
      return true;
    case Kind::kRange: {
      const RangeObject& range = source_.range();
      if (static_cast<int64_t>(at_) >= range.size) return false;
      item = Value::integer(range.start + static_cast<int64_t>(at_++) * range.step);
      return true;
    }
    case Kind::kIterator: {
      const auto& iterator = source_.get<IteratorObject>();
      if (iterator.next >= iterator.items.size()) return false;
      item = std::move(iterator.items[iterator.next++]);
      return true;
    }
    default:
      return false;  // undefined is empty
  }
}

std::vector<Value> to_items(Meter& meter, const Value& iterable) {
  std::vector<Value> items;
  Value item;
  for (Cursor cursor(iterable); cursor.next(meter, item);) items.push_back(std::move(item));
  return items;
}

}  // namespace qianli::text::jinja
