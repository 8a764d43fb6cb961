// Calls of macros, functions and loops.
#include <algorithm>

#include "qianli/text/jinja/evaluator.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {

MacroClosure::MacroClosure(Meter& meter, const Macro& what, std::shared_ptr<Activation> where)
    : Object(meter, sizeof(MacroClosure), 0), macro(&what), outer(std::move(where)) {}

std::shared_ptr<Activation> Evaluator::activate(const FunctionFrame& frame,
                                                std::shared_ptr<Activation> outer) {
  auto activation = std::make_shared<Activation>(meter(), frame, std::move(outer));
  if (frame.captured) kept_.push_back(activation);
  return activation;
}

Value Evaluator::make_macro(const Macro& macro) {
  return Value::of(Kind::kMacro, std::make_shared<MacroClosure>(meter(), macro, activation_));
}

Arguments Evaluator::evaluate(const CallArguments& arguments) {
  Arguments result;
  for (const auto& argument : arguments.positional) result.positional.push_back(evaluate(argument));
  for (const auto& [name, argument] : arguments.named)
    result.named.emplace_back(name, evaluate(argument));
  if (arguments.more_positional) {
    for (Value& item : to_items(meter(), evaluate(arguments.more_positional))) {
      result.positional.push_back(std::move(item));
    }
  }
  if (!arguments.more_named) return result;
  const Value more = evaluate(arguments.more_named);
  if (!more.is(Kind::kDict)) throw TemplateError("the argument behind ** must be a mapping");
  for (const auto& [key, value] : more.dict().entries) {
    if (!key.is_string()) throw TemplateError("keywords must be strings");
    if (result.find(key.text()))
      throw TemplateError("a keyword is given twice: '" + key.text() + "'");
    result.named.emplace_back(key.text(), value);
  }
  return result;
}

Value Evaluator::call(const Value& callee, Arguments arguments) {
  const DepthGuard guard(meter());
  switch (callee.kind()) {
    case Kind::kFunction: {
      const auto& function = callee.get<FunctionObject>();
      const Value* self = function.self.is_missing() ? nullptr : &function.self;
      return call_function(*this, *function.function, self, std::move(arguments));
    }
    case Kind::kMacro: {
      const auto closure = callee.share<MacroClosure>();
      return call_macro(*closure, std::move(arguments));
    }
    case Kind::kLoop: {
      const auto recurse = callee.get<LoopState>().recurse;
      if (!recurse) throw TemplateError("the loop must have the 'recursive' marker to be called");
      if (arguments.positional.size() != 1 || !arguments.named.empty()) {
        throw TemplateError("a loop is called with one argument");
      }
      return recurse(arguments.positional[0]);
    }
    case Kind::kUndefined:
      throw TemplateError(callee.text());
    default:
      throw TemplateError("'" + type_name(callee) + "' object is not callable");
  }
}

Value Evaluator::call_macro(const MacroClosure& closure, Arguments arguments) {
  const Macro& macro = *closure.macro;
  const int line = line_;
  const Enter inside(*this, activate(macro.function, closure.outer));
  bind_parameters(closure, arguments);
  enter(macro.scope);
  for (const Parameter& parameter : macro.parameters) {
    if (!variable(parameter.name.place).is_missing()) continue;
    variable(parameter.name.place) =
        parameter.otherwise
            ? evaluate(parameter.otherwise)
            : Value::undefined(meter(), "parameter '" + parameter.name.name + "' was not provided");
  }
  Capture capture(*this);
  run(macro.body);
  line_ = line;
  return capture.value();
}

// By position, then by name. What remains is for varargs and kwargs, or an error.
void Evaluator::bind_parameters(const MacroClosure& closure, Arguments& arguments) {
  const Macro& macro = *closure.macro;
  auto& positional = arguments.positional;
  const size_t given = std::min(positional.size(), macro.parameters.size());
  bool found_caller = false;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Name& name = macro.parameters[i].name;
    found_caller |= name.name == "caller";
    if (i < given) {
      variable(name.place) = std::move(positional[i]);
      continue;
    }
    const auto named =
        std::find_if(arguments.named.begin(), arguments.named.end(),
                     [&](const auto& argument) { return argument.first == name.name; });
    if (named == arguments.named.end()) continue;
    variable(name.place) = std::move(named->second);
    arguments.named.erase(named);
  }
  positional.erase(positional.begin(), positional.begin() + static_cast<ptrdiff_t>(given));
  bind_specials(macro, arguments, found_caller);
}

void Evaluator::bind_specials(const Macro& macro, Arguments& arguments, bool found_caller) {
  auto& slots = activation_->slots;
  if (macro.caller_slot >= 0 && !found_caller) {
    const auto caller =
        std::find_if(arguments.named.begin(), arguments.named.end(),
                     [](const auto& argument) { return argument.first == "caller"; });
    const bool given = caller != arguments.named.end() && !caller->second.is_none();
    slots[static_cast<size_t>(macro.caller_slot)] =
        given ? caller->second : Value::undefined(meter(), "No caller defined");
    if (caller != arguments.named.end()) arguments.named.erase(caller);
  }
  if (macro.named_slot >= 0) {
    const auto dict = std::make_shared<DictObject>(meter());
    for (auto& [name, value] : arguments.named) {
      dict->set(meter(), Value::string(meter(), name), std::move(value));
    }
    slots[static_cast<size_t>(macro.named_slot)] = make_dict(dict);
  } else if (!arguments.named.empty()) {
    throw TemplateError("macro '" + macro.name.name + "' takes no keyword argument '" +
                        arguments.named[0].first + "'");
  }
  if (macro.positional_slot >= 0) {
    slots[static_cast<size_t>(macro.positional_slot)] =
        Value::tuple(meter(), std::move(arguments.positional));
  } else if (!arguments.positional.empty()) {
    throw TemplateError("macro '" + macro.name.name + "' takes not more than " +
                        std::to_string(macro.parameters.size()) + " arguments");
  }
}

std::string macro_text(const Value& macro) {
  const std::string& name = macro.get<MacroClosure>().macro->name.name;
  return "<Macro " + (name.empty() ? "anonymous" : quote(name)) + ">";
}

Value macro_attribute(Meter& meter, const Value& macro, std::string_view name) {
  const Macro& node = *macro.get<MacroClosure>().macro;
  if (name == "name") return Value::string(meter, node.name.name);
  if (name == "catch_kwargs") return Value::boolean(node.named_slot >= 0);
  if (name == "catch_varargs") return Value::boolean(node.positional_slot >= 0);
  if (name == "caller") return Value::boolean(node.caller_slot >= 0);
  if (name != "arguments") return {};
  std::vector<Value> names;
  for (const Parameter& parameter : node.parameters) {
    names.push_back(Value::string(meter, parameter.name.name));
  }
  return Value::tuple(meter, std::move(names));
}

}  // namespace qianli::text::jinja
