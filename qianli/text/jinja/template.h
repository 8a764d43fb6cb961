// Chat templates: the part of jinja2 3.1 that transformers' apply_chat_template offers, in its
// sandbox. trim_blocks and lstrip_blocks are on, autoescape is off; loop controls and
// {% generation %} are there; include, import, extends, block and autoescape are refused.
//
// A template is a stranger's program: Limits bound its steps, memory and nesting.
// Integers have 64 bits, where Python's grow; a number beyond that is an error.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/text/jinja/meter.h"

namespace qianli::text::jinja {

struct ParsedTemplate;

// Half-open, in bytes of the rendered text.
struct TextRange {
  size_t begin = 0, end = 0;
};

struct Rendered {
  std::string text;
  // What {% generation %} blocks printed: the parts that the assistant says.
  std::vector<TextRange> generations;
  // A generation block stood in a macro or a captured block. Its range is what transformers
  // reports, counted from where the text had come when the block ran, and may be off.
  bool nested_generation = false;
};

// Immutable and safe to use from many threads at once.
class Template {
 public:
  // `name` stands in errors ("model/tokenizer_config.json"). Throws DataError with the line.
  Template(std::string_view source, std::string name);
  ~Template();
  Template(Template&&) noexcept;

  // `variables`: an object; its names are variables of the template. `now` is for strftime_now.
  // Throws DataError where the template fails, goes beyond a limit, or calls raise_exception.
  Rendered render(const OrderedJson& variables, const std::tm& now,
                  const Limits& limits = {}) const;

  // Whether the template has a {% generation %} block.
  bool marks_generation() const { return marks_generation_; }

 private:
  std::string name_;
  bool marks_generation_ = false;
  std::unique_ptr<const ParsedTemplate> parsed_;
};

}  // namespace qianli::text::jinja
