#include "qianli/convert/gguf/tokenizer.h"

namespace qianli::convert {
namespace {

// As in the tokenizer.json of the models they are named after (kO200k is OpenAI's); which name
// stands for which: llama.cpp, src/llama-vocab.cpp.
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBailing =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kSeedCoder =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kBloom = R"( ?[^(\s|[.,!?…。，、।۔،])]+)";
constexpr std::string_view kDeepSeekV3 =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

const std::vector<WordRule>& word_rules() {
  static const std::vector<WordRule> rules{
      {.names = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe", "jina-v2-es", "trillion",
                 "granite-docling"},
       .steps = {"ByteLevel"}},
      {.names = {"llama-bpe", "llama3", "llama-v3", "falcon3"},
       .steps = {kLlama3, "Bytes"},
       .ignore_merges = true},
      {.names = {"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, .steps = {kLlama3, "Bytes"}},
      {.names = {"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"},
       .steps = {kQwen2, "Bytes"},
       .nfc = true},
      {.names = {"hunyuan", "grok-2", "solar-open"}, .steps = {kQwen2, "Bytes"}},
      {.names = {"tekken"}, .steps = {kTekken, "Bytes"}, .ignore_merges = true},
      {.names = {"bailingmoe", "bailingmoe2", "llada-moe"}, .steps = {kBailing, "Bytes"}},
      {.names = {"seed-coder"}, .steps = {kSeedCoder, "Bytes"}},
      {.names = {"bloom", "poro-chat", "gpt3-finnish"}, .steps = {kBloom, "Bytes"}},
      {.names = {"deepseek-v3", "hunyuan-dense", "joyai-llm"},
       .steps = {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+", kDeepSeekV3, "Bytes"}},
      {.names = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"},
       .steps = {"Digits", "ByteLevel"}},
      {.names = {"gpt-4o", "llama4", "minimax-m2"}, .steps = {kO200k, "Bytes"}},
  };
  return rules;
}

}  // namespace qianli::convert
