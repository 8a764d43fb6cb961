// The options of instruction data.
#pragma once

#include "qianli/config/config.h"

namespace qianli::config {

template <class Visitor>
void InstructionConfig::fields(Visitor& v) {
  v(chat_template,
    {.key = "template",
     .help = "Chat template of instruction data: a name (`qianli tokenizer chat --help` lists "
             "them), FILE.json:NAME for one in a file of templates, or `model` for the one in the "
             "tokenizer's folder.",
     .flag = "--prompt-type"});
  v(format, {.key = "format",
             .help = "Columns of the rows: alpaca, sharegpt, openai, completion, text or steps.",
             .absent = "as the rows look"});
  v(handler_name,
    {.key = "handler_name",
     .help = "MindSpeed-LLM's name for format and task, like AlpacaStyleInstructionHandler.",
     .flag = "--handler-name"});
  v(map_keys, {.key = "map_keys",
               .help = "JSON: the column for each key, like {\"prompt\": \"question\"}.",
               .flag = "--map-keys"});
  v(enable_thinking,
    {.key = "enable_thinking",
     .help = "Thoughts in answers: none keeps them; true learns an empty one where there is none; "
             "false drops them.",
     .flag = "--enable-thinking",
     .choices = {"none", "true", "false"}});
  v(default_system, {.key = "default_system",
                     .help = "In the place of the template's system text, \"\" for none.",
                     .absent = "the template's"});
  v(variant, {.key = "variant", .help = "Of the template `model`: which of several."});
  v(template_variables,
    {.key = "template_variables", .help = "Of the template `model`: JSON of its variables."});
  v(keep_thinking,
    {.key = "keep_thinking", .help = "Of the template deepseek4: earlier thoughts stay."});
  v(reasoning_effort,
    {.key = "reasoning_effort", .help = "Of the template deepseek4: none, high or max."});
  v(truncation,
    {.key = "truncation",
     .help = "Samples that reach the sequence length: two-sided or proportional cut them so that "
             "they stay; drop leaves them out; template as MindSpeed-LLM, which leaves most out.",
     .choices = {"template", "two-sided", "proportional", "drop"}});
  v(train_on_prompt, {.key = "train_on_prompt", .help = "Questions are learnt, too."});
  v(mask_history, {.key = "mask_history", .help = "Only the last answer is learnt."});
}

}  // namespace qianli::config
