#include "qianli/text/rank_families.h"

#include <fmt/format.h>

#include <algorithm>

#include "qianli/text/pattern.h"

namespace qianli::text {
namespace {

constexpr std::string_view kEndOfText = "<|endoftext|>";

// How a family is told: its class, the stem of its file, its number of ranks (0: any).
struct Recognised {
  std::string_view family, class_name, stem;
  int32_t num_ranks;
};
constexpr Recognised kRecognised[] = {
    {"r50k", "", "r50k_base", 50256},          {"r50k", "", "gpt2", 50256},
    {"p50k", "", "p50k_base", 50280},          {"cl100k", "", "cl100k_base", 100256},
    {"o200k", "", "o200k_base", 199998},       {"o200k_harmony", "", "o200k_harmony", 0},
    {"llama3", "LlamaTokenizer", "", 128000},  {"qwen", "QWenTokenizer", "qwen", 151643},
    {"kimi", "TikTokenTokenizer", "", 163584}, {"glm4", "ChatGLM4Tokenizer", "", 151329}};

std::vector<std::string> numbered(std::string_view before, int first, int count,
                                  std::string_view after = "|>") {
  std::vector<std::string> names;
  for (int i = first; i < first + count; ++i)
    names.push_back(fmt::format("{}{}{}", before, i, after));
  return names;
}

void append(std::vector<std::string>& names, std::vector<std::string> more) {
  names.insert(names.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
}

// llama-models: 256 special tokens.
RankFamily llama3(int32_t num_ranks) {
  RankFamily family{.name = "llama3", .regex = kLlama3Regex, .first_special = num_ranks};
  family.special = {"<|begin_of_text|>",
                    "<|end_of_text|>",
                    "<|reserved_special_token_0|>",
                    "<|reserved_special_token_1|>",
                    "<|finetune_right_pad_id|>",
                    "<|reserved_special_token_2|>",
                    "<|start_header_id|>",
                    "<|end_header_id|>",
                    "<|eom_id|>",
                    "<|eot_id|>",
                    "<|python_tag|>"};
  append(family.special, numbered("<|reserved_special_token_", 3, 245));
  family.bos = family.special[0];
  family.eos = family.special[1];
  family.prefix = {family.special[0]};
  return family;
}

RankFamily qwen(int32_t num_ranks) {
  RankFamily family{.name = "qwen", .regex = kQwen2Regex, .nfc = true, .first_special = num_ranks};
  family.special = {std::string(kEndOfText), "<|im_start|>", "<|im_end|>"};
  append(family.special, numbered("<|extra_", 0, 205));
  family.eos = kEndOfText;
  return family;
}

RankFamily glm4(int32_t num_ranks) {
  RankFamily family{.name = "glm4", .regex = kLlama3Regex, .first_special = num_ranks};
  family.special = {std::string(kEndOfText),
                    "[MASK]",
                    "[gMASK]",
                    "[sMASK]",
                    "<sop>",
                    "<eop>",
                    "<|system|>",
                    "<|user|>",
                    "<|assistant|>",
                    "<|observation|>",
                    "<|begin_of_image|>",
                    "<|end_of_image|>",
                    "<|begin_of_video|>",
                    "<|end_of_video|>"};
  family.prefix = {"[gMASK]", "<sop>"};
  family.eos = kEndOfText;
  return family;
}

// o200k with the tokens of the harmony format: 199998 to 201087.
RankFamily harmony() {
  RankFamily family{.name = "o200k_harmony", .regex = kO200kRegex, .first_special = 199998};
  family.special = {"<|startoftext|>",
                    std::string(kEndOfText),
                    "<|reserved_200000|>",
                    "<|reserved_200001|>",
                    "<|return|>",
                    "<|constrain|>",
                    "<|reserved_200004|>",
                    "<|channel|>",
                    "<|start|>",
                    "<|end|>",
                    "<|message|>",
                    "<|reserved_200009|>",
                    "<|reserved_200010|>",
                    "<|reserved_200011|>",
                    "<|call|>"};
  append(family.special, numbered("<|reserved_", 200013, 201088 - 200013));
  family.special[200018 - 199998] = "<|endofprompt|>";
  family.bos = "<|startoftext|>";
  family.eos = "<|return|>";
  return family;
}

RankFamily family_named(std::string_view name, int32_t num_ranks) {
  if (name == "llama3") return llama3(num_ranks);
  if (name == "qwen") return qwen(num_ranks);
  if (name == "glm4") return glm4(num_ranks);
  if (name == "o200k_harmony") return harmony();
  if (name == "kimi") {
    RankFamily family{.name = name, .regex = kKimiRegex, .first_special = num_ranks};
    family.special = numbered("<|reserved_token_", num_ranks, 256);
    return family;
  }
  RankFamily family{.name = name, .regex = kGpt2Regex, .first_special = 50256};
  family.special = {std::string(kEndOfText)};
  family.eos = kEndOfText;
  if (name == "cl100k") {
    family.regex = kCl100kRegex;
    family.first_special = 100257;
    append(family.special, {"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"});
    family.special.resize(100276 - 100257);
    family.special.push_back("<|endofprompt|>");
  } else if (name == "o200k") {
    family.regex = kO200kRegex;
    family.first_special = 199999;
    family.special.resize(200018 - 199999);
    family.special.push_back("<|endofprompt|>");
  }
  return family;
}

}  // namespace

std::optional<RankFamily> find_rank_family(std::string_view class_name, std::string_view file_name,
                                           int32_t num_ranks) {
  const std::string_view stem = file_name.substr(0, file_name.rfind('.'));
  const auto find = [&](const auto& matches) -> std::optional<RankFamily> {
    const auto found = std::find_if(std::begin(kRecognised), std::end(kRecognised), matches);
    if (found == std::end(kRecognised)) return std::nullopt;
    return family_named(found->family, num_ranks);
  };
  if (auto family = find([&](const Recognised& r) {
        return !r.class_name.empty() && r.class_name == class_name;
      })) {
    return family;
  }
  if (auto family = find([&](const Recognised& r) { return !r.stem.empty() && r.stem == stem; })) {
    return family;
  }
  return find([&](const Recognised& r) { return r.num_ranks == num_ranks; });
}

std::string known_rank_families() {
  std::vector<std::string_view> names;
  for (const Recognised& r : kRecognised) {
    if (std::find(names.begin(), names.end(), r.family) == names.end()) names.push_back(r.family);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace qianli::text
