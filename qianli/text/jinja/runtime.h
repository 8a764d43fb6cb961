// What built-in functions may ask of the rendering they run in.
#pragma once

#include <ctime>
#include <memory>
#include <string_view>
#include <vector>

#include "qianli/text/jinja/callable.h"
#include "qianli/text/jinja/value.h"

namespace qianli::text::jinja {

class Runtime {
 public:
  Runtime(Meter& meter, const std::tm& now) : meter_(meter), now_(now) {}
  virtual ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Meter& meter() { return meter_; }
  const std::tm& now() const { return now_; }  // for strftime_now

  virtual Value call(const Value& callee, Arguments arguments) = 0;
  // Throw where there is no such filter or test.
  Value filter(std::string_view name, const Value& value, Arguments arguments);
  bool test(std::string_view name, const Value& value, Arguments arguments);

  // Namespaces can hold each other in a circle, so the rendering keeps them until its end.
  Value make_namespace(std::vector<std::pair<std::string, Value>> attributes);

 private:
  Meter& meter_;
  std::tm now_;
  std::vector<std::shared_ptr<NamespaceObject>> namespaces_;
};

// a.name: an attribute of the object, else its item. a["key"]: the other way round.
Value get_attribute(Runtime& runtime, const Value& object, std::string_view name);
Value get_item(Runtime& runtime, const Value& object, const Value& key);
// a[start:stop:step]; missing bounds are left out.
Value get_slice(Meter& meter, const Value& object, const Value& start, const Value& stop,
                const Value& step);
void set_attribute(Meter& meter, const Value& space, const std::string& name, Value value);

enum class BinaryOperator { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOperator {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};
Value binary(Meter& meter, BinaryOperator op, const Value& left, const Value& right);
bool compare(Meter& meter, CompareOperator op, const Value& left, const Value& right);
Value negate(const Value& value);
Value plus(const Value& value);

// "%s and %d" % values: a tuple gives one value each, a dict by %(name)s.
std::string format_percent(Meter& meter, std::string_view format, const Value& values);
// "{} and {name:>5}".format(...)
std::string format_braces(Runtime& runtime, std::string_view format, const Arguments& arguments);

// json.dumps.
struct JsonStyle {
  bool ascii_only = false, sort_keys = false;
  bool indented = false;
  std::string indent;
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(Meter& meter, const Value& value, const JsonStyle& style);

}  // namespace qianli::text::jinja
