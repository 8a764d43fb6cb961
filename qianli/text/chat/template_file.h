// Chat templates of one's own, in the layout of MindSpeed-LLM's configs/finetune/templates.json: a
// list of objects
//
//   {"name": "mine",
//    "format_user": {"slots": ["<user>{{content}}<bot>"]},      also assistant, system, function,
//                                                               observation, separator, prefix
//    "format_tools": {"tool_format": "default"},                default, qwen, qwen3, ling, glm4
//    "default_system": "", "stop_words": ["<end>"], "thought_words": ["<think>", "</think>"],
//    "efficient_eos": false, "replace_eos": false, "template_class": "Template"}
//
// An element of slots is a text, {"token": "<|user|>"}, ["bos_token"] or ["eos_token"].
#pragma once

#include <memory>
#include <string>

#include "qianli/base/json.h"
#include "qianli/text/chat/named_template.h"

namespace qianli::text::chat {

// ConfigError that names the template and the key which does not fit.
NamedTemplate template_of_json(const OrderedJson& json, const std::string& source);

// One of the named templates, or with "FILE.json:NAME" one of a file. ConfigError where there is no
// such template, with a suggestion.
std::shared_ptr<const NamedTemplate> find_template(const std::string& name);
// Whether the name is that of a template in a file.
bool is_in_file(const std::string& name);

// Everything of a template that decides ids.
OrderedJson to_json(const NamedTemplate& named);

}  // namespace qianli::text::chat
