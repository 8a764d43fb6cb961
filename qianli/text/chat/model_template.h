// The chat template that a model's folder brings.
#pragma once

#include <cstdint>
#include <ctime>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/text/jinja/template.h"
#include "qianli/text/tokenizer.h"

namespace qianli::text::chat {

// What a folder says: chat_template.jinja and additional_chat_templates/NAME.jinja, else
// chat_template in tokenizer_config.json (a text, or a list of named ones), else
// chat_template.json.
struct ModelTemplateFiles {
  struct Source {
    std::string text, file;
  };
  std::map<std::string, Source> templates;  // by name; "default" is the usual one
  // bos_token and the like, variables of the template.
  std::map<std::string, std::string> tokens;

  // An empty result where the folder has none. Throws DataError naming file and key.
  static ModelTemplateFiles read(const fs::path& folder);
  // From the text of a tokenizer_config.json.
  void read_config(std::string_view json, const std::string& file);
};

struct ChatRequest {
  OrderedJson messages;          // a list of objects, handed to the template as they are
  OrderedJson tools, documents;  // lists, or null
  bool add_generation_prompt = false;
  OrderedJson variables = OrderedJson::object();  // more of them: {"enable_thinking": false}
  std::tm now{};                                  // for strftime_now
};

class ModelTemplate {
 public:
  // `name` empty: "tool_use" where there are tools and the folder has such a template, else
  // "default", else the only one. Throws DataError where there is none.
  ModelTemplate(const ModelTemplateFiles& files, const std::string& name, bool with_tools);
  // A template from elsewhere with the tokens of a folder.
  ModelTemplate(const ModelTemplateFiles::Source& source,
                std::map<std::string, std::string> tokens);

  jinja::Rendered render(const ChatRequest& request, const jinja::Limits& limits = {}) const;
  // Where the template came from.
  const std::string& file() const { return file_; }

 private:
  std::string file_;
  std::map<std::string, std::string> tokens_;
  jinja::Template template_;
};

std::tm local_time_now();

// For each id whether its text lies in one of the ranges, where the ids are those of `text`. Throws
// DataError where the tokenizer changes the text (decoding does not give it back), so that places
// cannot be found.
std::vector<bool> tokens_in_ranges(const std::shared_ptr<const Tokenizer>& tokenizer,
                                   std::span<const int32_t> ids, std::string_view text,
                                   std::span<const jinja::TextRange> ranges);

}  // namespace qianli::text::chat
