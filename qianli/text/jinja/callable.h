// What a template can call: built-in functions, methods of values, macros, and loops.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "qianli/text/jinja/value.h"

namespace qianli::text::jinja {

class Runtime;

// Arguments of one call as the template wrote them.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* find(std::string_view name) const;
};

// Arguments matched to the parameters of a built-in. A parameter that was not given is missing.
class Bound {
 public:
  Bound(Runtime& runtime, const Function& function, std::vector<Value> values, Arguments rest)
      : runtime_(runtime),
        function_(function),
        values_(std::move(values)),
        rest_(std::move(rest)) {}

  Runtime& runtime() const { return runtime_; }
  Meter& meter() const;
  const Function& function() const { return function_; }
  const Value& operator[](size_t index) const { return values_[index]; }
  bool has(size_t index) const { return !values_[index].is_missing(); }
  // Given and not none.
  bool is_set(size_t index) const { return has(index) && !values_[index].is_none(); }
  // What no parameter took; only where the built-in accepts such.
  const Arguments& rest() const { return rest_; }

  // str() of the argument.
  std::string text(size_t index) const;
  std::string text_or(size_t index, std::string_view otherwise) const;
  int64_t integer(size_t index) const;
  int64_t integer_or(size_t index, int64_t otherwise) const;
  bool truth_or(size_t index, bool otherwise) const;
  // Throws unless the argument is a text.
  const std::string& string(size_t index) const;
  // `text` as a value, markup where the argument is.
  Value like(size_t index, std::string text) const;

 private:
  Runtime& runtime_;
  const Function& function_;
  std::vector<Value> values_;
  Arguments rest_;
};

struct Function {
  std::string_view name;
  // Comma-separated; "?" after a parameter that may be left out, "*" last: any further arguments.
  // The first one is the filtered value or the object of a method.
  std::string_view parameters;
  Value (*run)(const Bound& arguments);
};

struct FunctionObject : Object {
  FunctionObject(Meter& meter, const Function& what, Value object);
  const Function* function;
  Value self;  // missing for a plain function
};

Value make_function(Meter& meter, const Function& function, Value self = {});
bool same_function(const Value& a, const Value& b);
Value call_function(Runtime& runtime, const Function& function, const Value* self,
                    Arguments arguments);

using FunctionTable = std::span<const Function>;
const Function* find_in(FunctionTable table, std::string_view name);

// Each a file of its own.
FunctionTable text_filters();
FunctionTable list_filters();
FunctionTable number_filters();
FunctionTable pick_filters();
FunctionTable string_methods();

// Null where there is none of that name.
const Function* find_filter(std::string_view name);
const Function* find_test(std::string_view name);
const Function* find_method(const Value& self, std::string_view name);
const Function* find_global(std::string_view name);

// Of macros and loops, which the evaluator makes.
int64_t loop_length(const Value& loop);
std::string loop_text(const Value& loop);
std::string macro_text(const Value& macro);
Value loop_attribute(Meter& meter, const Value& loop, std::string_view name);
Value macro_attribute(Meter& meter, const Value& macro, std::string_view name);

}  // namespace qianli::text::jinja
