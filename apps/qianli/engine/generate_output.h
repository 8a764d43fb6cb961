// What `generate` prints.
#pragma once

#include <string>
#include <string_view>

#include "apps/qianli/engine.h"
#include "qianli/base/json.h"
#include "qianli/infer/model.h"

namespace qianli::app {

// Text for the user as it appears. write() is false when nobody reads any more (`| head`).
class Output {
 public:
  Output();
  bool write(std::string_view text);
  bool write_prompt(const std::string& prompt);  // dim on a terminal
  bool write_json(const OrderedJson& json);

 private:
  bool terminal_;
};

// Ids of a prompt; where a text has none, the token that begins texts.
std::vector<int64_t> prompt_ids(const infer::Model& model, const std::string& prompt,
                                bool special_tokens);
void run_beams(const GenerateArguments& arguments, infer::Model& model);

}  // namespace qianli::app
