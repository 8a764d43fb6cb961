#include <gtest/gtest.h>

#include <map>

#include "qianli/base/error.h"
#include "qianli/text/chat/model_template.h"
#include "qianli/text/jinja/template.h"
#include "tests/support/test_paths.h"

namespace qianli::text::jinja {
namespace {

using testing::shared_data;
using testing::source_path;

// 3 February 2025, 14:05; what tools/reference/chat_reference.py has too.
std::tm fixed_time() {
  std::tm now{};
  now.tm_year = 125, now.tm_mon = 1, now.tm_mday = 3, now.tm_hour = 14, now.tm_min = 5;
  now.tm_wday = 1, now.tm_yday = 33;
  return now;
}

OrderedJson golden(const std::string& name) {
  const auto path = source_path("tests/golden/chat/" + name);
  return parse_ordered_json(read_file(path, FileRole::kData), path.string(), FileRole::kData);
}

std::string render(std::string_view source, const OrderedJson& variables = OrderedJson::object(),
                   const Limits& limits = {}) {
  return Template(source, "test").render(variables, fixed_time(), limits).text;
}

// The message of the error, or "" where there is none.
std::string error_of(std::string_view source, const OrderedJson& variables = OrderedJson::object(),
                     const Limits& limits = {}) {
  try {
    render(source, variables, limits);
    return "";
  } catch (const DataError& error) {
    return error.what();
  }
}

void expect_golden(const Template& chat, const OrderedJson& variables,
                   const OrderedJson& expected) {
  if (!expected.contains("text")) {
    EXPECT_THROW(chat.render(variables, fixed_time()), DataError) << expected["error"];
    return;
  }
  const Rendered rendered = chat.render(variables, fixed_time());
  EXPECT_EQ(rendered.text, expected["text"].get<std::string>());
  OrderedJson ranges = OrderedJson::array();
  for (const TextRange& range : rendered.generations) ranges.push_back({range.begin, range.end});
  EXPECT_EQ(ranges, expected["generations"]);
}

TEST(Jinja, shows_every_part_of_the_language_as_the_reference_does) {
  const OrderedJson goldens = golden("language.json");
  ASSERT_GT(goldens["cases"].size(), 85u);
  for (const OrderedJson& item : goldens["cases"]) {
    SCOPED_TRACE(item["template"].dump());
    const auto source = item["template"].get<std::string>();
    if (item.contains("text")) {
      expect_golden(Template(source, "test"), goldens["variables"], item);
    } else {
      EXPECT_NE(error_of(source, goldens["variables"]), "") << item["error"];
    }
  }
}

TEST(Jinja, renders_templates_in_the_style_of_model_families_as_transformers_does) {
  const OrderedJson goldens = golden("renders.json");
  std::map<std::string, Template> templates;
  size_t rendered = 0;
  for (const OrderedJson& item : goldens["renders"]) {
    const auto name = item["template"].get<std::string>();
    SCOPED_TRACE(name + " " + item["conversation"].dump() + " " + item["variables"].dump());
    if (!templates.count(name)) {
      const auto path = source_path("tests/golden/chat/templates/" + name + ".jinja");
      templates.emplace(name, Template(read_file(path, FileRole::kData), name));
    }
    OrderedJson variables = goldens["tokens"];
    variables.update(goldens["variables"][item["variables"].get<size_t>()]);
    variables["messages"] = goldens["conversations"][item["conversation"].get<std::string>()];
    for (const char* name : {"tools", "documents", "add_generation_prompt"}) {
      if (!variables.contains(name)) variables[name] = nullptr;
    }
    expect_golden(templates.at(name), variables, item);
    rendered += item.contains("text") ? 1 : 0;
  }
  EXPECT_GT(rendered, 450u);
}

TEST(Jinja, renders_the_templates_of_real_models_as_transformers_does) {
  QIANLI_REQUIRE_DATA(folder, "tokenizers");
  const OrderedJson goldens = golden("renders.json"), models = golden("models.json");
  std::map<std::string, chat::ModelTemplateFiles> files;
  for (const OrderedJson& item : models) {
    const auto name = item["model"].get<std::string>();
    SCOPED_TRACE(name + " " + item["conversation"].dump() + " " + item["variables"].dump());
    if (!files.count(name)) files[name] = chat::ModelTemplateFiles::read(folder / name);
    const chat::ModelTemplate model(files[name], "", false);
    chat::ChatRequest request{.variables = goldens["variables"][item["variables"].get<size_t>()],
                              .now = fixed_time()};
    request.messages = goldens["conversations"][item["conversation"].get<std::string>()];
    request.tools = request.variables.value("tools", OrderedJson());
    request.documents = request.variables.value("documents", OrderedJson());
    request.add_generation_prompt = request.variables.value("add_generation_prompt", false);
    if (item.contains("text"))
      EXPECT_EQ(model.render(request).text, item["text"].get<std::string>());
    else
      EXPECT_THROW(model.render(request), DataError);
  }
}

TEST(Jinja, errors_name_file_line_and_reason) {
  EXPECT_EQ(error_of("a\n\n{% if x %}"),
            "[chat template] the template ends, and {% endif %} is missing at line 3 of test.");
  EXPECT_EQ(error_of("\n{{ 1 + }}"), "[chat template] unexpected '}}' at line 2 of test.");
  EXPECT_EQ(error_of("{% for i in [1] %}\n{{ a.b }}{% endfor %}"),
            "[chat template] 'a' is undefined at line 2 of test.");
  EXPECT_EQ(error_of("{{ raise_exception('no system role') }}"),
            "[chat template] test refuses these messages: no system role.");
  EXPECT_NE(error_of("{% include 'x' %}").find("'include' is not supported"), std::string::npos);
  EXPECT_NE(error_of("{{ l.append(1) }}", {{"l", OrderedJson::array()}}).find("changes its object"),
            std::string::npos);
  EXPECT_NE(error_of("{{ 9223372036854775807 + 1 }}").find("64 bits"), std::string::npos);
  EXPECT_NE(error_of("\xFF").find("UTF-8"), std::string::npos);
}

// Each would run for ages, fill the memory or the stack.
TEST(Jinja, bombs_end_in_an_error_soon) {
  std::string nested, parentheses(20000, '('), minus(50000, '-'), chain = "{{ 1", dots = "{{ x",
                                                                  elifs = "{% if 0 %}", ifs;
  for (int i = 0; i < 20; ++i) nested += "{% for a" + std::to_string(i) + " in range(90000) %}";
  for (int i = 0; i < 20; ++i) nested += "{% endfor %}";
  for (int i = 0; i < 20000; ++i)
    chain += " + 1", dots += ".x", elifs += "{% elif 0 %}", ifs += "{% if 1 %}";
  const std::vector<std::string> bombs = {
      nested,
      "{{ " + parentheses,
      "{{ " + minus + "1 }}",
      "{{ not" + std::string(50000, ' ') + parentheses,
      chain + " }}",
      dots + " }}",
      ifs,
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(90) %}{% set ns.s = ns.s + ns.s "
      "%}{% endfor %}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(90) %}{% set ns.s = ns.s ~ ns.s "
      "%}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] "
      "%}{% set ns.m = [ns.m, ns.m] %}{% endfor %}{{ ns.l == ns.m }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}{{ ns.l|tojson }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(90000) %}{% set ns.l = [ns.l] %}{% endfor "
      "%}",
      "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
      "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ 'x' * 1000000000000 }}",
      "{{ [1] * 1000000000000 }}",
      "{{ 'a' * 9223372036854775807 }}",
      "{{ ('a' * 100000)|replace('', 'b' * 100000) }}",
      "{{ ('a,' * 100000).replace(',', 'b' * 100000) }}",
      "{{ ('b' * 1000000).join('a' * 1000000) }}",
      "{{ range(99999)|join('b' * 1000000) }}",
      "{{ 'a'|center(100000000000) }}{{ 'a'.ljust(100000000000) }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ [1]|batch(1000000000000, 0)|list }}",
      "{{ []|slice(1000000000000)|list }}",
      "{{ 'a'|indent(1000000000000, true) }}",
      "{{ [1]|tojson(indent=1000000000000) }}",
      "{% for i in range(99999) %}{% for j in range(99999) %}{{ 'abcdefgh' * 100 }}{% endfor %}{% "
      "endfor %}",
      "{% set ns = namespace(n=none) %}{% for i in range(99999) %}{% for j in range(99) %}{% set "
      "ns.n = namespace(p=ns.n) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
      "{% set s = 'a' * 10000000 %}{% for i in range(99999) %}{{ 'b' in s }}{% endfor %}",
      "{% set s = 'a' * 10000000 %}{% for i in range(99999) %}{% set x = s|upper %}{% endfor %}",
      "{{ 2 ** 99999999999 }}",
      "{{ 7 ** 7 ** 7 ** 7 }}",
  };
  EXPECT_NE(error_of(bombs[0]), "");
  for (const std::string& bomb : bombs) {
    EXPECT_NE(error_of(bomb, OrderedJson::object(), {.steps = 2'000'000}), "")
        << bomb.substr(0, 100);
  }
  EXPECT_NE(error_of(elifs), "");
  std::string names;
  for (int i = 0; i < 20000; ++i)
    names += "{% if 1 %}{% set a" + std::to_string(i) + " = 1 %}{% endif %}";
  EXPECT_NE(error_of(names).find("too many variables"), std::string::npos);
}

TEST(Jinja, limits_are_the_callers) {
  EXPECT_NE(
      error_of("{% for i in range(100) %}{% endfor %}", OrderedJson::object(), {.steps = 100}), "");
  EXPECT_EQ(
      error_of("{% for i in range(100) %}{% endfor %}", OrderedJson::object(), {.steps = 1000}),
      "");
  EXPECT_NE(error_of("{{ 'a' * 100000 }}", OrderedJson::object(), {.memory_bytes = 50000}), "");
  EXPECT_NE(error_of("{{ [[[[[[1]]]]]] }}", OrderedJson::object(), {.depth = 4}), "");
}

// A conversation of a thousand long turns stays far below the limits.
TEST(Jinja, long_conversations_render) {
  const auto path = source_path("tests/golden/chat/templates/chatml_tools.jinja");
  OrderedJson messages = OrderedJson::array();
  for (int i = 0; i < 1000; ++i) {
    messages.push_back(
        {{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(20000, 'x')}});
  }
  const Template chat(read_file(path, FileRole::kData), "chatml_tools");
  EXPECT_GT(chat.render({{"messages", messages}}, fixed_time()).text.size(), 20'000'000u);
}

TEST(Jinja, tells_whether_the_assistants_text_is_marked) {
  EXPECT_TRUE(
      Template("{% for m in l %}{% generation %}{{ m }}{% endgeneration %}{% endfor %}", "t")
          .marks_generation());
  EXPECT_FALSE(Template("{{ l }}", "t").marks_generation());
  const Template inside(
      "{% macro f() %}x{% generation %}y{% endgeneration %}{% endmacro %}{{ f() }}", "t");
  EXPECT_TRUE(inside.render(OrderedJson::object(), fixed_time()).nested_generation);
}

}  // namespace
}  // namespace qianli::text::jinja
