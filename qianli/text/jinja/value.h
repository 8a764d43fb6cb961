// Values of a template, with the meaning Python gives them. Values are immutable (transformers
// renders in an immutable sandbox too); only namespaces, iterators and loops change. Every object
// is charged to the Meter of its rendering and dies before it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "qianli/text/jinja/meter.h"

namespace qianli::text::jinja {

enum class Kind : uint8_t {
  kMissing,    // a variable nobody set; never seen by a template
  kUndefined,  // prints as "", false, empty; anything else is an error
  kNone,
  kBool,
  kInteger,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kView,  // dict.keys(), .values(), .items()
  kRange,
  kIterator,  // what lazy filters give: read once
  kNamespace,
  kFunction,  // built-in function or bound method
  kMacro,
  kLoop,
};

class Value;
struct Function;
struct LoopState;
struct MacroClosure;

// Lists within lists, at most; so walks over values may recurse.
inline constexpr int kMaxNesting = 100;

struct Object {
  Object(Meter& meter, size_t bytes, int depth);
  virtual ~Object() = default;
  Charge charge;
  int depth;  // levels of objects below and including this one
};

struct StringObject : Object {
  StringObject(Meter& meter, std::string value);
  std::string text;   // valid UTF-8
  size_t characters;  // code points
};

struct ListObject : Object {  // lists, tuples, views
  ListObject(Meter& meter, std::vector<Value> values);
  std::vector<Value> items;
  const char* view = "";  // "dict_keys", ... of a view
  bool is_group = false;  // a tuple of the groupby filter: .grouper and .list
};

struct DictObject;

struct RangeObject : Object {
  RangeObject(Meter& meter, int64_t start, int64_t stop, int64_t step);
  int64_t start, stop, step, size;
};

struct IteratorObject : Object {
  IteratorObject(Meter& meter, std::vector<Value> values);
  mutable std::vector<Value> items;
  mutable size_t next = 0;
};

struct NamespaceObject : Object {
  explicit NamespaceObject(Meter& meter);
  std::vector<std::pair<std::string, Value>> attributes;
};

class Value {
 public:
  Value() = default;  // missing
  static Value undefined(Meter& meter, std::string message);
  static Value none() { return Value(Kind::kNone); }
  static Value boolean(bool value);
  static Value integer(int64_t value);
  static Value real(double value);
  static Value string(Meter& meter, std::string text);
  static Value list(Meter& meter, std::vector<Value> items);
  static Value tuple(Meter& meter, std::vector<Value> items);
  static Value iterator(Meter& meter, std::vector<Value> items);
  static Value of(Kind kind, std::shared_ptr<const Object> object);
  // A value whose object lives elsewhere, held by the rendering (macros, namespaces).
  Value as_markup() const;

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_missing() const { return kind_ == Kind::kMissing; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  // Python's int, bool included.
  bool is_integral() const { return kind_ == Kind::kBool || kind_ == Kind::kInteger; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  // Text that the escape filter takes for escaped already.
  bool is_markup() const { return markup_; }

  // Each only for its kind; as_integer also for kBool, as_real for all numbers.
  bool as_boolean() const { return integer_ != 0; }
  int64_t as_integer() const { return integer_; }
  double as_real() const { return kind_ == Kind::kFloat ? real_ : static_cast<double>(integer_); }
  const std::string& text() const { return get<StringObject>().text; }
  size_t characters() const { return get<StringObject>().characters; }
  const std::vector<Value>& items() const { return get<ListObject>().items; }
  const DictObject& dict() const;
  const RangeObject& range() const { return get<RangeObject>(); }
  const Object* object() const { return object_.get(); }
  template <class T>
  const T& get() const {
    return static_cast<const T&>(*object_);
  }
  template <class T>
  std::shared_ptr<const T> share() const {
    return std::static_pointer_cast<const T>(object_);
  }
  int depth() const { return object_ ? object_->depth : 0; }

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Kind kind_ = Kind::kMissing;
  bool markup_ = false;
  union {
    int64_t integer_ = 0;
    double real_;
  };
  std::shared_ptr<const Object> object_;
};

// In the order of insertion, as Python's.
struct DictObject : Object {
  explicit DictObject(Meter& meter);
  std::vector<std::pair<Value, Value>> entries;
  const Value* find(Meter& meter, const Value& key) const;
  const Value* find(std::string_view key) const;
  // Overwrites the value of an equal key. Throws for keys that Python cannot hash.
  void set(Meter& meter, Value key, Value value);

 private:
  size_t position(Meter& meter, const Value& key, size_t hash) const;
  std::unordered_multimap<size_t, size_t> places_;  // hash of key -> entry
};

Value make_dict(std::shared_ptr<DictObject> dict);

// Python's type name: "str", "dict", ...
std::string type_name(const Value& value);

bool truth(const Value& value);
bool equal(Meter& meter, const Value& a, const Value& b);
// Throws where Python has no order.
bool less(Meter& meter, const Value& a, const Value& b);
size_t hash(Meter& meter, const Value& value);
bool contains(Meter& meter, const Value& container, const Value& item);
// len(); throws where Python has none.
int64_t length(const Value& value);
bool has_length(const Value& value);
bool is_iterable(const Value& value);

// str() and repr().
std::string to_text(Meter& meter, const Value& value);
std::string to_repr(Meter& meter, const Value& value);
// What text filters see: the value itself if it is a text, else str() of it.
Value to_string(Meter& meter, const Value& value);

// Walks over anything Python can iterate; throws "'int' object is not iterable" otherwise.
class Cursor {
 public:
  explicit Cursor(Value source);
  bool next(Meter& meter, Value& item);

 private:
  Value source_;
  size_t at_ = 0;
};

std::vector<Value> to_items(Meter& meter, const Value& iterable);

}  // namespace qianli::text::jinja
