// Gives every name of a template its variable. jinja2 decides that before a template runs, scope by
// scope: a name that a scope sets without reading it first is that scope's from its beginning, also
// for the loops and macros within that run before it is set.
#include "qianli/text/jinja/names.h"
#include "qianli/text/jinja/symbols.h"
#include "qianli/text/jinja/token.h"

namespace qianli::text::jinja {
namespace {

// What one scope loads and stores. Scopes within are not looked into; each gets Symbols of its own.
class Analyzer {
 public:
  explicit Analyzer(Symbols& symbols) : symbols_(&symbols) {}

  void load(const ExpressionPtr& expression) {
    if (expression) each_name(*expression, [&](Name& name) { symbols_->load(name.name); });
  }
  void store(Target& target) {
    each_name(target, [&](Name& name, bool stored) {
      if (stored)
        symbols_->store(name.name);
      else
        symbols_->load(name.name);
    });
  }
  void declare(Target& target) {
    each_name(target, [&](Name& name, bool) { symbols_->declare(name.name); });
  }
  void block(Block& block) {
    for (Statement& statement : block) {
      std::visit(
          Overloaded{[&](Text&) {}, [&](LoopControl&) {}, [&](Generation&) {},
                     [&](Print& node) { load(node.value); }, [&](If& node) { branch(node, 0); },
                     [&](For& node) { load(node.iterable); },
                     [&](Assign& node) { load(node.value), store(node.target); },
                     [&](AssignBlock& node) { store(node.target); },
                     [&](MacroDefinition& node) { symbols_->store(node.macro->name.name); },
                     [&](CallBlock& node) { load(node.call); },
                     [&](FilterBlock& node) { load(node.filter); },
                     [&](With& node) {
                       for (auto& [target, value] : node.assignments) load(value);
                     }},
          statement.node);
    }
  }

 private:
  // jinja2 sees every elif as an if of its own beside the branches, each looked at on a copy.
  void branch(If& node, size_t index) {
    load(node.branches[index].first);
    Symbols* const outer = symbols_;
    count_copies(*outer);
    Symbols body = *outer, others = *outer, otherwise = *outer;
    symbols_ = &body;
    block(node.branches[index].second);
    if (index == 0) {
      symbols_ = &others;
      for (size_t i = 1; i < node.branches.size(); ++i) branch(node, i);
      symbols_ = &otherwise;
      block(node.otherwise);
    }
    symbols_ = outer;
    symbols_->merge({&body, &others, &otherwise});
  }

  // A template of many names and many ifs would be copied for ages.
  void count_copies(const Symbols& symbols) {
    constexpr size_t kMaxCopied = 5'000'000;
    copied_ += symbols.size() + 1;
    if (copied_ > kMaxCopied) throw SyntaxError{"too many variables and branches", 1};
  }

  Symbols* symbols_;
  size_t copied_ = 0;
};

// Puts the places into the tree, scope by scope.
class Binder {
 public:
  Binder(Symbols& symbols, bool in_loop) : symbols_(symbols), in_loop_(in_loop) {}

  void block(Block& block) {
    for (Statement& statement : block) {
      std::visit([&](auto& node) { bind(node, statement.line); }, statement.node);
    }
  }
  void names(const ExpressionPtr& expression) {
    if (expression)
      each_name(*expression, [&](Name& name) { name.place = symbols_.place(name.name); });
  }
  void names(Target& target) {
    each_name(target, [&](Name& name, bool) { name.place = symbols_.place(name.name); });
  }

 private:
  void bind(Text&, int) {}
  void bind(Print& node, int) { names(node.value); }
  void bind(Assign& node, int) { names(node.value), names(node.target); }
  void bind(LoopControl& node, int line) {
    if (!in_loop_)
      throw SyntaxError{node.is_break ? "break outside a loop" : "continue outside a loop", line};
  }
  void bind(If& node, int) {
    for (auto& [condition, body] : node.branches) names(condition), block(body);
    block(node.otherwise);
  }

  void bind(For& node, int line) {
    check_loop_name(node, line);
    names(node.iterable);
    if (!node.recursive) return bind_loop(node, symbols_.function());
    FunctionVariables function(&symbols_.function(), node.function);
    bind_loop(node, function);
  }

  static void check_loop_name(For& node, int line) {
    bool stored = FirstUse("loop").is_stored_anywhere(node.body) ||
                  FirstUse("loop").is_stored_anywhere(node.otherwise);
    each_name(node.target, [&](Name& name, bool) { stored |= name.name == "loop"; });
    if (stored)
      throw SyntaxError{"cannot assign to the special variable 'loop' within a loop", line};
  }

  void bind_loop(For& node, FunctionVariables& function) {
    Symbols body(&symbols_, function);
    const bool extended = node.recursive || FirstUse("loop").is_read(node.body);
    if (extended) body.declare("loop");
    Analyzer(body).declare(node.target);
    Analyzer(body).block(node.body);
    if (extended) node.loop = body.place("loop");
    Binder inner(body, true);
    inner.names(node.target);
    inner.block(node.body);
    node.body_scope = body.scope();
    if (node.condition) bind_condition(node, function);

    Symbols otherwise(&symbols_, function);
    Analyzer(otherwise).block(node.otherwise);
    Binder(otherwise, in_loop_ && !node.recursive).block(node.otherwise);
    node.otherwise_scope = otherwise.scope();
  }

  void bind_condition(For& node, FunctionVariables& function) {
    Symbols condition(&symbols_, function, "if.");
    Analyzer analyzer(condition);
    analyzer.declare(*node.condition_target);
    analyzer.load(node.condition);
    Binder binder(condition, false);
    binder.names(*node.condition_target);
    binder.names(node.condition);
    node.condition_scope = condition.scope();
  }

  void bind(AssignBlock& node, int) {
    Symbols inner(&symbols_, symbols_.function());
    Analyzer analyzer(inner);
    analyzer.block(node.body);
    analyzer.load(node.filter);
    Binder binder(inner, in_loop_);
    binder.block(node.body);
    binder.names(node.filter);
    names(node.target);
    node.scope = inner.scope();
  }

  void bind(FilterBlock& node, int) {
    Symbols inner(&symbols_, symbols_.function());
    Analyzer analyzer(inner);
    analyzer.block(node.body);
    analyzer.load(node.filter);
    Binder binder(inner, in_loop_);
    binder.block(node.body);
    binder.names(node.filter);
    node.scope = inner.scope();
  }

  void bind(With& node, int) {
    Symbols inner(&symbols_, symbols_.function());
    Analyzer analyzer(inner);
    for (auto& [target, value] : node.assignments) analyzer.declare(target);
    analyzer.block(node.body);
    Binder binder(inner, in_loop_);
    for (auto& [target, value] : node.assignments) names(value), binder.names(target);
    binder.block(node.body);
    node.scope = inner.scope();
  }

  void bind(MacroDefinition& node, int line) {
    bind_function(*node.macro, line);
    node.macro->name.place = symbols_.place(node.macro->name.name);
  }
  void bind(CallBlock& node, int line) {
    bind_function(*node.body, line);
    names(node.call);
  }
  void bind(Generation& node, int line) { bind_function(*node.body, line); }

  void bind_function(Macro& macro, int line) {
    FunctionVariables function(&symbols_.function(), macro.function);
    Symbols inner(&symbols_, function);
    Analyzer analyzer(inner);
    for (Parameter& parameter : macro.parameters) inner.declare(parameter.name.name);
    declare_specials(macro, inner, line);
    for (Parameter& parameter : macro.parameters) analyzer.load(parameter.otherwise);
    analyzer.block(macro.body);
    Binder binder(inner, false);
    for (Parameter& parameter : macro.parameters) {
      parameter.name.place = inner.place(parameter.name.name);
      binder.names(parameter.otherwise);
    }
    binder.block(macro.body);
    macro.scope = inner.scope();
  }

  static void declare_specials(Macro& macro, Symbols& inner, int line) {
    const auto is_parameter = [&](const std::string& name, const Parameter** found = nullptr) {
      for (const Parameter& parameter : macro.parameters) {
        if (parameter.name.name != name) continue;
        if (found) *found = &parameter;
        return true;
      }
      return false;
    };
    const auto declare = [&](const char* name, int& slot) {
      if (is_parameter(name) || !FirstUse(name).is_read(macro.body)) return;
      inner.declare(name);
      slot = inner.place(name).slot;
    };
    const Parameter* caller = nullptr;
    if (is_parameter("caller", &caller) && !caller->otherwise &&
        FirstUse("caller").is_read(macro.body)) {
      throw SyntaxError{"the parameter 'caller' of a macro needs a default", line};
    }
    declare("caller", macro.caller_slot);
    declare("kwargs", macro.named_slot);
    declare("varargs", macro.positional_slot);
  }

  Symbols& symbols_;
  bool in_loop_;
};

}  // namespace

void resolve_names(ParsedTemplate& parsed) {
  FunctionVariables function(nullptr, parsed.function);
  Symbols symbols(nullptr, function);
  Analyzer(symbols).block(parsed.body);
  Binder(symbols, false).block(parsed.body);
  parsed.scope = symbols.scope();
}

}  // namespace qianli::text::jinja
