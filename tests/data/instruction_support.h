// A tokenizer of a few words, and examples for it.
#pragma once

#include "qianli/data/instruction/example.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data::testing_support {

using Ids = std::vector<int32_t>;

// One id per word and per mark of the template `default`: the tokens of the format's own example.
inline std::shared_ptr<const text::Tokenizer> words() {
  OrderedJson json = {{"version", "1.0"},
                      {"added_tokens", OrderedJson::array()},
                      {"normalizer", nullptr},
                      {"pre_tokenizer",
                       {{"type", "Split"},
                        {"pattern", {{"Regex", "Human:|\\nAssistant:|\\n| "}}},
                        {"behavior", "Isolated"},
                        {"invert", false}}},
                      {"post_processor", nullptr},
                      {"decoder", {{"type", "Fuse"}}},
                      {"model",
                       {{"type", "WordLevel"},
                        {"vocab",
                         {{"<unk>", 0},
                          {"<pad>", 1},
                          {"</s>", 2},
                          {"+", 3},
                          {"-", 4},
                          {"|", 5},
                          {" ", 9},
                          {"Human:", 10},
                          {"Hi", 11},
                          {"\nAssistant:", 12},
                          {"\n", 13},
                          {"Bye", 14},
                          {"Hello", 20},
                          {"Ciao", 21},
                          {"No", 22},
                          {"sop", 30},
                          {"[gMASK]", 31},
                          {"<think>", 40},
                          {"</think>", 41}}},
                        {"unk_token", "<unk>"}}}};
  for (const auto& [id, token] : {std::pair(2, "</s>"), {40, "<think>"}, {41, "</think>"}}) {
    json["added_tokens"].push_back({{"id", id},
                                    {"content", token},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  }
  return text::Tokenizer::from_json(json.dump(), "words",
                                    {.eos_token = "</s>", .pad_token = "<pad>"});
}

inline Example example(const std::string& text, RowFormat format = RowFormat::kAlpaca,
                       InstructionTask task = InstructionTask::kSft) {
  return read_example(
      parse_ordered_json(text, "row", FileRole::kData),
      {.format = format, .task = task, .columns = column_map(format, ""), .additional = {}});
}

inline constexpr const char* kTwoTurns =
    R"({"instruction": "Bye", "output": "Ciao", "history": [["Hi", "Hello"]]})";

}  // namespace qianli::data::testing_support
