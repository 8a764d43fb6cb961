#include "qianli/text/jinja/template.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/text/jinja/evaluator.h"
#include "qianli/text/jinja/token.h"
#include "qianli/text/unicode.h"

namespace qianli::text::jinja {
namespace {

constexpr size_t kMaxSource = size_t{1} << 20;

Value from_json(Meter& meter, const OrderedJson& json) {
  const DepthGuard guard(meter);
  switch (json.type()) {
    case OrderedJson::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case OrderedJson::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case OrderedJson::value_t::number_unsigned:
      if (json.get<uint64_t>() > uint64_t{INT64_MAX}) {
        throw TemplateError("an integer of more than 64 bits");
      }
      return Value::integer(json.get<int64_t>());
    case OrderedJson::value_t::number_float:
      return Value::real(json.get<double>());
    case OrderedJson::value_t::string:
      return Value::string(meter, json.get_ref<const std::string&>());
    case OrderedJson::value_t::array: {
      std::vector<Value> items;
      for (const OrderedJson& item : json) items.push_back(from_json(meter, item));
      return Value::list(meter, std::move(items));
    }
    case OrderedJson::value_t::object: {
      const auto dict = std::make_shared<DictObject>(meter);
      for (const auto& [key, value] : json.items()) {
        dict->set(meter, Value::string(meter, key), from_json(meter, value));
      }
      return make_dict(dict);
    }
    default:
      return Value::none();
  }
}

bool has_generation(const Block& block) {
  for (const Statement& statement : block) {
    if (std::holds_alternative<Generation>(statement.node)) return true;
    const bool inside = std::visit(
        [](const auto& node) {
          using Node = std::decay_t<decltype(node)>;
          if constexpr (std::is_same_v<Node, If>) {
            for (const auto& [condition, body] : node.branches) {
              if (has_generation(body)) return true;
            }
            return has_generation(node.otherwise);
          } else if constexpr (std::is_same_v<Node, For>) {
            return has_generation(node.body) || has_generation(node.otherwise);
          } else if constexpr (std::is_same_v<Node, MacroDefinition>) {
            return has_generation(node.macro->body);
          } else if constexpr (std::is_same_v<Node, CallBlock>) {
            return has_generation(node.body->body);
          } else if constexpr (std::is_same_v<Node, AssignBlock> ||
                               std::is_same_v<Node, FilterBlock> || std::is_same_v<Node, With>) {
            return has_generation(node.body);
          } else {
            return false;
          }
        },
        statement.node);
    if (inside) return true;
  }
  return false;
}

}  // namespace

Template::Template(std::string_view source, std::string name) : name_(std::move(name)) {
  if (source.size() > kMaxSource) {
    throw DataError("chat template", fmt::format("expected at most {} bytes in {}, got {}",
                                                 kMaxSource, name_, source.size()));
  }
  if (valid_utf8_prefix(source) != source.size()) {
    throw DataError("chat template", fmt::format("{} is not valid UTF-8", name_));
  }
  try {
    parsed_ = std::make_unique<ParsedTemplate>(parse(source));
  } catch (const SyntaxError& error) {
    throw DataError("chat template",
                    fmt::format("{} at line {} of {}", error.problem, error.line, name_));
  }
  marks_generation_ = has_generation(parsed_->body);
}

Template::~Template() = default;
Template::Template(Template&&) noexcept = default;

Rendered Template::render(const OrderedJson& variables, const std::tm& now,
                          const Limits& limits) const {
  Meter meter(limits);
  int line = 0;
  try {
    const Value values = from_json(meter, variables);
    Evaluator evaluator(meter, now, values.dict());
    Rendered rendered;
    try {
      rendered.text = evaluator.render(*parsed_);
    } catch (const TemplateError&) {
      line = evaluator.line();
      throw;
    }
    for (const ByteRange& range : evaluator.generations()) {
      rendered.generations.push_back({range.begin, range.end});
    }
    rendered.nested_generation = evaluator.nested_generation();
    return rendered;
  } catch (const Refusal& refusal) {
    throw DataError("chat template",
                    fmt::format("{} refuses these messages: {}", name_, refusal.what()));
  } catch (const TemplateError& error) {
    throw DataError("chat template", fmt::format("{} at line {} of {}", error.what(), line, name_));
  }
}

}  // namespace qianli::text::jinja
