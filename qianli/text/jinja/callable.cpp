// Matching of arguments to parameters, and where filters, tests, methods and functions are found.
#include "qianli/text/jinja/callable.h"

#include <algorithm>

#include "qianli/text/jinja/runtime.h"

namespace qianli::text::jinja {
namespace {

struct ParameterName {
  std::string_view name;
  bool optional;
};

// "value,old,new?,*" cut at the commas; `more` tells whether there is a star.
std::vector<ParameterName> parameter_names(std::string_view list, bool& more) {
  std::vector<ParameterName> names;
  while (!list.empty()) {
    std::string_view name = list.substr(0, list.find(','));
    list.remove_prefix(std::min(name.size() + 1, list.size()));
    if (name == "*") {
      more = true;
      continue;
    }
    const bool optional = name.back() == '?';
    if (optional) name.remove_suffix(1);
    names.push_back({name, optional});
  }
  return names;
}

[[noreturn]] void refuse(const Function& function, const std::string& problem) {
  throw TemplateError(std::string(function.name) + "() " + problem);
}

}  // namespace

const Value* Arguments::find(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

FunctionObject::FunctionObject(Meter& meter, const Function& what, Value object)
    : Object(meter, sizeof(FunctionObject), object.depth() + 1),
      function(&what),
      self(std::move(object)) {}

Value make_function(Meter& meter, const Function& function, Value self) {
  return Value::of(Kind::kFunction,
                   std::make_shared<FunctionObject>(meter, function, std::move(self)));
}

bool same_function(const Value& a, const Value& b) {
  const auto &left = a.get<FunctionObject>(), &right = b.get<FunctionObject>();
  return left.function == right.function && left.self.object() == right.self.object();
}

Value call_function(Runtime& runtime, const Function& function, const Value* self,
                    Arguments arguments) {
  bool more = false;
  const auto names = parameter_names(function.parameters, more);
  std::vector<Value> values(names.size());
  size_t filled = 0;
  if (self) values[filled++] = *self;
  auto& positional = arguments.positional;
  size_t used = 0;
  while (filled < names.size() && used < positional.size())
    values[filled++] = std::move(positional[used++]);
  positional.erase(positional.begin(), positional.begin() + static_cast<ptrdiff_t>(used));
  if (!more && !positional.empty()) refuse(function, "was given too many arguments");
  std::vector<std::pair<std::string, Value>> unknown;
  for (auto& [name, value] : arguments.named) {
    const auto place = std::find_if(
        names.begin(), names.end(),
        [&wanted = name](const ParameterName& parameter) { return parameter.name == wanted; });
    if (place == names.end() || (self && place == names.begin())) {
      unknown.emplace_back(name, std::move(value));
      continue;
    }
    Value& slot = values[static_cast<size_t>(place - names.begin())];
    if (!slot.is_missing()) refuse(function, "was given '" + name + "' twice");
    slot = std::move(value);
  }
  if (!more && !unknown.empty()) refuse(function, "takes no argument '" + unknown[0].first + "'");
  arguments.named = std::move(unknown);
  for (size_t i = 0; i < names.size(); ++i) {
    if (values[i].is_missing() && !names[i].optional) {
      refuse(function, "needs the argument '" + std::string(names[i].name) + "'");
    }
  }
  return function.run(Bound(runtime, function, std::move(values), std::move(arguments)));
}

Meter& Bound::meter() const { return runtime_.meter(); }

std::string Bound::text(size_t index) const { return to_text(meter(), values_[index]); }

std::string Bound::text_or(size_t index, std::string_view otherwise) const {
  return has(index) ? text(index) : std::string(otherwise);
}

int64_t Bound::integer(size_t index) const {
  const Value& value = values_[index];
  if (value.is_undefined()) throw TemplateError(value.text());
  if (!value.is_integral()) {
    refuse(function_, "expects an integer, got '" + type_name(value) + "'");
  }
  return value.as_integer();
}

int64_t Bound::integer_or(size_t index, int64_t otherwise) const {
  return is_set(index) ? integer(index) : otherwise;
}

bool Bound::truth_or(size_t index, bool otherwise) const {
  return has(index) ? truth(values_[index]) : otherwise;
}

const std::string& Bound::string(size_t index) const {
  const Value& value = values_[index];
  if (value.is_undefined()) throw TemplateError(value.text());
  if (!value.is_string()) refuse(function_, "expects a text, got '" + type_name(value) + "'");
  return value.text();
}

Value Bound::like(size_t index, std::string text) const {
  Value result = Value::string(meter(), std::move(text));
  return values_[index].is_markup() ? result.as_markup() : result;
}

const Function* find_in(FunctionTable table, std::string_view name) {
  const auto found =
      std::find_if(table.begin(), table.end(), [&](const Function& f) { return f.name == name; });
  return found == table.end() ? nullptr : &*found;
}

const Function* find_filter(std::string_view name) {
  for (const FunctionTable table :
       {text_filters(), list_filters(), pick_filters(), number_filters()}) {
    if (const Function* found = find_in(table, name)) return found;
  }
  return nullptr;
}

Value Runtime::filter(std::string_view name, const Value& value, Arguments arguments) {
  const DepthGuard guard(meter_);
  const Function* function = find_filter(name);
  if (!function) throw TemplateError("no filter named '" + std::string(name) + "'");
  return call_function(*this, *function, &value, std::move(arguments));
}

bool Runtime::test(std::string_view name, const Value& value, Arguments arguments) {
  const DepthGuard guard(meter_);
  const Function* function = find_test(name);
  if (!function) throw TemplateError("no test named '" + std::string(name) + "'");
  return truth(call_function(*this, *function, &value, std::move(arguments)));
}

Runtime::~Runtime() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

Value Runtime::make_namespace(std::vector<std::pair<std::string, Value>> attributes) {
  const auto space = std::make_shared<NamespaceObject>(meter_);
  namespaces_.push_back(space);
  const Value value = Value::of(Kind::kNamespace, space);
  for (auto& [name, attribute] : attributes)
    set_attribute(meter_, value, name, std::move(attribute));
  return value;
}

}  // namespace qianli::text::jinja
