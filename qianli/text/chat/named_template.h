// The chat templates that fine-tuning knows by name (MindSpeed-LLM's --prompt-type), as data: what
// stands around the words of each role. The strings are a wire format that models were trained on;
// not one character may change.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text::chat {

struct Part {
  enum class Kind {
    kText,  // tokenized by itself; {{content}}, {{idx}}, {{name}}, {{arguments}} are filled in once
    kToken,  // one entry of the vocabulary
    kBos,    // nothing where the tokenizer has none
    kEos,
  } kind;
  std::string text;
};
using Slot = std::vector<Part>;

enum class TemplateClass {
  kTemplate,
  kLlama2,     // the system text goes inside the first user text
  kLfDefault,  // no separators; truncation leaves the shorter side whole
  kReasoning,  // thoughts are kept, dropped or marked as absent
  kDeepSeek4,  // rendered by deepseek4.cpp, without slots
};
enum class ToolFormat { kDefault, kQwen3, kLing, kGlm4 };

struct NamedTemplate {
  std::string name;
  TemplateClass kind = TemplateClass::kTemplate;
  Slot prefix;
  Slot system = {{Part::Kind::kText, "{{content}}"}};
  Slot user = {{Part::Kind::kText, "{{content}}"}};
  Slot assistant;           // where empty: the content, then eos unless efficient_eos
  Slot observation;         // where empty: as user
  Slot function;            // where empty: "Action: ...", then eos unless efficient_eos
  bool json_calls = false;  // function calls as <tool_call> JSON instead of name and arguments
  ToolFormat tools = ToolFormat::kDefault;
  Slot separator;
  std::string default_system;
  std::vector<std::string> stop_words;
  // The slots give no eos; whoever trains puts it on the first token of the next turn.
  bool efficient_eos = false;
  bool replace_eos = false;  // the first stop word becomes the tokenizer's eos
  std::string thought_begin = "<think>\n", thought_end = "\n</think>\n\n";
};

// All of them, in the order of the published list.
std::span<const NamedTemplate> named_templates();
// Throws ConfigError with a suggestion.
const NamedTemplate& named_template(std::string_view name);
// With what an entry of a table leaves out: the slots of assistant, function and observation.
NamedTemplate completed(NamedTemplate entry);

}  // namespace qianli::text::chat
