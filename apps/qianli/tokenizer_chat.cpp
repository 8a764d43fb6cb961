// qianli tokenizer chat: a conversation as the text and the ids that a model sees.
#include <fmt/core.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "apps/qianli/command.h"
#include "apps/qianli/template_options.h"
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/data/instruction/configured.h"
#include "qianli/text/chat/encode_turns.h"
#include "qianli/text/chat/model_template.h"
#include "qianli/text/chat/template_file.h"
#include "qianli/text/tokenizer.h"

namespace qianli::app {
namespace {

using text::Tokenizer;
namespace chat = text::chat;

struct Options {
  std::string model, messages, tools, documents, named, jinja, variant, thinking = "none", effort;
  std::string default_system;
  std::vector<std::string> variables;
  bool generation_prompt = false, last_answer = false, keep_thinking = false, json = false;
  bool has_default_system = false;
};

OrderedJson read(const std::string& path) {
  return parse_ordered_json(read_file(path, FileRole::kData, uint64_t{1} << 30), path,
                            FileRole::kData);
}

OrderedJson read_if_given(const std::string& path) {
  return path.empty() ? OrderedJson() : read(path);
}

std::string list(std::span<const int32_t> ids, bool json) {
  return fmt::format("{}", fmt::join(ids, json ? "," : " "));
}

// The model's own template, or one from a file.
class OwnTemplate {
 public:
  explicit OwnTemplate(const Options& options)
      : options_(options), tokenizer_(Tokenizer::load(options.model)) {
    const OrderedJson messages = read(options.messages);
    const bool whole = messages.is_object() && messages.contains("messages");
    request_.messages = whole ? messages["messages"] : messages;
    if (!request_.messages.is_array()) {
      throw DataError("tokenizer",
                      fmt::format("expected a list of messages in {}", options.messages));
    }
    request_.tools = read_if_given(options.tools);
    if (options.tools.empty() && whole && messages.contains("tools"))
      request_.tools = messages["tools"];
    request_.documents = read_if_given(options.documents);
    request_.add_generation_prompt = options.generation_prompt;
    request_.variables = read_variables(options.variables);
    request_.now = chat::local_time_now();
  }

  void print() const {
    const fs::path folder = fs::is_directory(options_.model)
                                ? fs::path(options_.model)
                                : fs::path(options_.model).parent_path();
    const auto files = chat::ModelTemplateFiles::read(folder);
    const chat::ModelTemplate model =
        options_.jinja.empty()
            ? chat::ModelTemplate(files, options_.variant, request_.tools.is_array())
            : chat::ModelTemplate(
                  {read_file(options_.jinja, FileRole::kData, uint64_t{1} << 24), options_.jinja},
                  files.tokens);
    const auto rendered = model.render(request_);
    const auto ids = tokenizer_->encode(rendered.text, false);
    if (!options_.json) {
      fmt::print("{}\n{}\n", rendered.text, list(ids, false));
      return;
    }
    OrderedJson result = {{"template", model.file()}, {"text", rendered.text}, {"ids", ids}};
    if (!rendered.generations.empty() && !rendered.nested_generation)
      add_assistant(result, rendered, ids);
    fmt::print("{}\n", result.dump());
  }

 private:
  // Where the assistant speaks: ranges of the text in characters, and one flag for each id.
  void add_assistant(OrderedJson& result, const text::jinja::Rendered& rendered,
                     std::span<const int32_t> ids) const {
    const auto characters = [&](size_t bytes) {
      return std::count_if(rendered.text.begin(),
                           rendered.text.begin() + static_cast<ptrdiff_t>(bytes),
                           [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
    };
    result["assistant_ranges"] = OrderedJson::array();
    for (const auto& range : rendered.generations) {
      result["assistant_ranges"].push_back({characters(range.begin), characters(range.end)});
    }
    const auto inside =
        chat::tokens_in_ranges(tokenizer_, ids, rendered.text, rendered.generations);
    result["assistant_mask"] = std::vector<int>(inside.begin(), inside.end());
  }

  const Options& options_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  chat::ChatRequest request_;
};

chat::TurnOptions turn_options(const Options& options) {
  chat::TurnOptions turns{.last_answer_only = options.last_answer,
                          .drop_thinking = !options.keep_thinking,
                          .reasoning_effort = options.effort};
  turns.thinking = data::thinking_of(options.thinking);
  if (options.has_default_system) turns.default_system = options.default_system;
  return turns;
}

// A named template: turns, and the sample that training makes of them.
void print_named(const Options& options) {
  const auto found = chat::find_template(options.named);
  const chat::NamedTemplate& named = *found;
  const auto tokenizer = Tokenizer::load(options.model);
  chat::Conversation conversation =
      chat::read_conversation(read(options.messages), options.messages);
  if (!options.tools.empty()) conversation.tools = read(options.tools);
  const chat::TurnEncoder encoder(tokenizer, named);
  const auto turns = chat::render_turns(named, conversation, turn_options(options));
  for (const auto& warnings : {encoder.warnings(), turns.warnings}) {
    for (const std::string& warning : warnings) log::warn("tokenizer", "{}", warning);
  }
  const auto encoded = encoder.encode(turns);
  const auto sample = encoder.sample(encoded);
  std::string whole;
  std::vector<int32_t> ids;
  OrderedJson turns_json = OrderedJson::array();
  for (size_t i = 0; i < encoded.size(); ++i) {
    const auto text_of = [&](const chat::Slot& slot) {
      return chat::to_text(slot, encoder.bos_text(), encoder.eos_text());
    };
    const std::string source = text_of(turns.turns[i].source),
                      target = text_of(turns.turns[i].target);
    whole += source + target;
    ids.insert(ids.end(), encoded[i].source.begin(), encoded[i].source.end());
    ids.insert(ids.end(), encoded[i].target.begin(), encoded[i].target.end());
    turns_json.push_back({{"source", source},
                          {"target", target},
                          {"source_ids", encoded[i].source},
                          {"target_ids", encoded[i].target}});
  }
  if (!options.json) {
    fmt::print("{}\n{}\n", whole, list(ids, false));
    return;
  }
  const OrderedJson result = {{"template", named.name},
                              {"text", whole},
                              {"ids", ids},
                              {"turns", turns_json},
                              {"sample", {{"ids", sample.ids}, {"labels", sample.labels}}},
                              {"stop_ids", encoder.stop_ids()}};
  fmt::print("{}\n", result.dump());
}

// Options that the chosen kind of template does not read.
void check_options(const Options& options) {
  const bool named = !options.named.empty();
  const auto refuse = [&](const char* flag, const char* kind) {
    throw ConfigError("tokenizer", fmt::format("expected {} with {} only", flag, kind));
  };
  if (named && !options.jinja.empty())
    throw ConfigError("tokenizer", "expected --template or --jinja, got both");
  if (named && (!options.variant.empty())) refuse("--variant", "the model's own templates");
  if (named && !options.documents.empty())
    refuse("--documents", "the model's own template or --jinja");
  if (named && !options.variables.empty()) refuse("--set", "the model's own template or --jinja");
  if (!named && options.thinking != "none") {
    throw ConfigError("tokenizer", "expected --enable-thinking with --template only",
                      "a model's own template takes --set enable_thinking=false");
  }
  const bool turns = options.last_answer || options.keep_thinking || !options.effort.empty() ||
                     options.has_default_system;
  if (!named && turns) {
    refuse("--last-answer-only, --keep-thinking, --reasoning-effort and --default-system",
           "--template");
  }
}

void add_options(CLI::App& sub, Options& options) {
  sub.add_option("model", options.model, "Folder with tokenizer.json and its chat template")
      ->required();
  sub.add_option("--messages", options.messages,
                 "JSON file: a list of {role, content}, or an object with messages, system, tools")
      ->required();
  sub.add_option("--template", options.named,
                 "A named template in the place of the model's own (see below)");
  sub.add_option("--jinja", options.jinja, "A template file in the place of the model's own");
  sub.add_option("--variant", options.variant,
                 "Which of the model's templates, where it has several");
  sub.add_flag("--add-generation-prompt", options.generation_prompt,
               "End with the words that open an answer (named templates always do)");
  sub.add_option("--tools", options.tools, "JSON file: a list of tools");
  sub.add_option("--documents", options.documents, "JSON file: a list of documents");
  sub.add_option("--set", options.variables,
                 "NAME=VALUE for the model's template, for example enable_thinking=false");
  sub.add_option("--enable-thinking", options.thinking,
                 "Of named templates: keep thoughts as they are, want them, or drop them")
      ->check(CLI::IsMember({"none", "true", "false"}))
      ->capture_default_str();
  sub.add_flag("--last-answer-only", options.last_answer,
               "Of named templates: only the last answer is learnt");
  sub.add_flag("--keep-thinking", options.keep_thinking, "Of deepseek4: earlier thoughts stay");
  sub.add_option("--reasoning-effort", options.effort, "Of deepseek4: none, high or max");
  sub.add_flag("--json", options.json, "Print JSON: text, ids, turns or the assistant's ranges");
}

}  // namespace

void add_tokenizer_chat(CLI::App& tokenizer) {
  const auto options = std::make_shared<Options>();
  CLI::App* sub =
      tokenizer.add_subcommand("chat", "A conversation as text and ids, by a chat template");
  add_options(*sub, *options);
  const CLI::Option* system =
      sub->add_option("--default-system", options->default_system,
                      "Of named templates: in the place of the default system text, \"\" for none");
  sub->footer(list_of_templates());
  sub->callback([options, system] {
    options->has_default_system = system->count() > 0;
    check_options(*options);
    if (options->named.empty())
      OwnTemplate(*options).print();
    else
      print_named(*options);
  });
}

}  // namespace qianli::app
