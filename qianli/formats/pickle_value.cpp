#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "qianli/formats/pickle.h"
#include "qianli/formats/pickle_node.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/tensor.h"

namespace qianli::formats {
namespace {

std::shared_ptr<PickleNode> make(Value::Kind kind, decltype(PickleNode::content) content) {
  return std::make_shared<PickleNode>(PickleNode{kind, std::move(content)});
}

struct NamedDtype {
  std::string_view name;
  Dtype dtype;
};
// torch.X, and MindSpore's names.
constexpr NamedDtype kDtypes[] = {
    {"float32", Dtype::kF32},
    {"float", Dtype::kF32},
    {"float64", Dtype::kF64},
    {"double", Dtype::kF64},
    {"float16", Dtype::kF16},
    {"half", Dtype::kF16},
    {"bfloat16", Dtype::kBF16},
    {"uint8", Dtype::kU8},
    {"int8", Dtype::kI8},
    {"int16", Dtype::kI16},
    {"short", Dtype::kI16},
    {"int32", Dtype::kI32},
    {"int", Dtype::kI32},
    {"int64", Dtype::kI64},
    {"long", Dtype::kI64},
    {"uint16", Dtype::kU16},
    {"uint32", Dtype::kU32},
    {"uint64", Dtype::kU64},
    {"bool", Dtype::kBool},
    {"bool_", Dtype::kBool},
    {"complex64", Dtype::kC64},
    {"float8_e4m3fn", Dtype::kF8E4M3},
    {"float8_e5m2", Dtype::kF8E5M2},
    {"float8_e4m3fnuz", Dtype::kF8E4M3Fnuz},
    {"float8_e8m0fnu", Dtype::kF8E8M0},
    {"float8_e5m2fnuz", Dtype::kF8E5M2Fnuz},
};

// Appends to a text that must stay short.
class Shower {
 public:
  explicit Shower(size_t limit) : limit_(limit) {}

  bool full() const { return text_.size() >= limit_; }
  std::string finish() {
    if (text_.size() <= limit_) return std::move(text_);
    return text_.substr(0, limit_) + "...";
  }
  void add(std::string_view piece) {
    if (!full()) text_ += piece.substr(0, limit_ - text_.size() + 1);
  }

  void show(const Value& value) {
    if (full()) return;
    using Kind = Value::Kind;
    switch (value.kind()) {
      case Kind::kNone:
        return add("None");
      case Kind::kBool:
        return add(*value.as_bool() ? "True" : "False");
      case Kind::kInt:
        return add(std::to_string(*value.as_int()));
      case Kind::kFloat:
        return add(fmt::format("{}", *value.as_float()));
      case Kind::kBigInt:
        return add(*value.as_text());
      case Kind::kText:
        return add(shown_name(*value.as_text()));
      case Kind::kBytes:
        return add(fmt::format("{} bytes", value.as_bytes()->size()));
      case Kind::kList:
        return show_items(*value.items(), "[", "]");
      case Kind::kTuple:
        return show_items(*value.items(), "(", ")");
      case Kind::kSet:
        return show_items(*value.items(), "{", "}");
      case Kind::kDict:
        return show_entries(*value.entries());
      case Kind::kGlobal:
        return add(value.as_global()->text());
      case Kind::kStorage:
        return add(fmt::format("storage of {}", value.as_storage()->num_elements));
      case Kind::kTensor:
        return add(fmt::format("tensor {} {}", dtype_name(value.as_tensor()->dtype),
                               shape_text(value.as_tensor()->shape)));
      case Kind::kObject:
        add(value.as_object()->callable.text());
        show(value.as_object()->arguments);
        if (!value.as_object()->state.is_none()) show(value.as_object()->state);
    }
  }

 private:
  void show_items(const Values& values, std::string_view open, std::string_view close) {
    add(open);
    for (size_t i = 0; i < values.size() && !full(); ++i) {
      if (i) add(", ");
      show(values[i]);
    }
    add(close);
  }

  void show_entries(const Entries& entries) {
    add("{");
    for (size_t i = 0; i < entries.size() && !full(); ++i) {
      if (i) add(", ");
      show(entries[i].first);
      add(": ");
      show(entries[i].second);
    }
    add("}");
  }

  size_t limit_;
  std::string text_;
};

const Value* find_in(const Entries& entries, std::string_view key) {
  const auto place = std::ranges::find_if(entries, [&](const auto& entry) {
    const std::string* text = entry.first.as_text();
    return text && *text == key;
  });
  return place == entries.end() ? nullptr : &place->second;
}

}  // namespace

Value Value::big_integer(std::string decimal) {
  return Value(make(Kind::kBigInt, std::move(decimal)));
}
Value Value::text(std::string value) { return Value(make(Kind::kText, std::move(value))); }
Value Value::bytes(std::string value) { return Value(make(Kind::kBytes, std::move(value))); }
Value Value::list(Values values) { return Value(make(Kind::kList, std::move(values))); }
Value Value::tuple(Values values) { return Value(make(Kind::kTuple, std::move(values))); }
Value Value::set(Values values) { return Value(make(Kind::kSet, std::move(values))); }
Value Value::dict(Entries entries) { return Value(make(Kind::kDict, std::move(entries))); }
Value Value::global(std::string module, std::string name) {
  return Value(make(Kind::kGlobal, GlobalName{std::move(module), std::move(name)}));
}
Value Value::storage(Storage storage) { return Value(make(Kind::kStorage, std::move(storage))); }
Value Value::tensor(StoredTensor tensor) { return Value(make(Kind::kTensor, std::move(tensor))); }
Value Value::object(Object object) { return Value(make(Kind::kObject, std::move(object))); }

const PickleNode* Value::node() const {
  const auto* node = std::get_if<std::shared_ptr<PickleNode>>(&content_);
  return node ? node->get() : nullptr;
}

template <class T>
const T* Value::held(Kind kind) const {
  const PickleNode* n = node();
  return n && n->kind == kind ? std::get_if<T>(&n->content) : nullptr;
}

Value::Kind Value::kind() const {
  constexpr std::array kInline{Kind::kNone, Kind::kBool, Kind::kInt, Kind::kFloat};
  return content_.index() < kInline.size() ? kInline[content_.index()] : node()->kind;
}

std::optional<bool> Value::as_bool() const {
  const bool* value = std::get_if<bool>(&content_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<int64_t> Value::as_int() const {
  const int64_t* value = std::get_if<int64_t>(&content_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<double> Value::as_float() const {
  if (const double* value = std::get_if<double>(&content_)) return *value;
  if (const auto whole = as_int()) return static_cast<double>(*whole);
  return std::nullopt;
}

const std::string* Value::as_text() const {
  const std::string* text = held<std::string>(Kind::kText);
  return text ? text : held<std::string>(Kind::kBigInt);
}
const std::string* Value::as_bytes() const { return held<std::string>(Kind::kBytes); }

const Values* Value::items() const {
  const PickleNode* n = node();
  return n ? std::get_if<Values>(&n->content) : nullptr;
}

const Entries* Value::entries() const { return held<Entries>(Kind::kDict); }
const GlobalName* Value::as_global() const { return held<GlobalName>(Kind::kGlobal); }
const Storage* Value::as_storage() const { return held<Storage>(Kind::kStorage); }
const StoredTensor* Value::as_tensor() const { return held<StoredTensor>(Kind::kTensor); }
const Object* Value::as_object() const { return held<Object>(Kind::kObject); }

std::optional<std::vector<int64_t>> Value::as_integers() const {
  const Values* values = items();
  if (!values) return std::nullopt;
  std::vector<int64_t> integers;
  for (const Value& value : *values) {
    const auto integer = value.as_int();
    if (!integer) return std::nullopt;
    integers.push_back(*integer);
  }
  return integers;
}

const Value* Value::find(std::string_view key) const {
  if (const Entries* own = entries()) return find_in(*own, key);
  const Object* object = as_object();
  if (!object) return nullptr;
  if (const Value* entry = find_in(object->entries, key)) return entry;
  return object->state.entries() ? find_in(*object->state.entries(), key) : nullptr;
}

std::string Value::shown(size_t max_characters) const {
  Shower shower(max_characters);
  shower.show(*this);
  return shower.finish();
}

std::optional<Dtype> dtype_of(const Value& value) {
  const GlobalName* global = value.as_global();
  if (!global && value.as_object()) global = &value.as_object()->callable;
  if (!global) return std::nullopt;
  std::string name = global->name;
  std::ranges::transform(name, name.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  const auto known = std::ranges::find(kDtypes, name, &NamedDtype::name);
  return known == std::end(kDtypes) ? std::nullopt : std::optional(known->dtype);
}

}  // namespace qianli::formats
