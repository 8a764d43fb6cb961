#include "qianli/model/fitting_family.h"

#include <algorithm>
#include <array>

#include "qianli/base/error.h"
#include "qianli/model/family.h"
#include "qianli/model/hugging_face.h"

namespace qianli::model {
namespace {

// Plain families first: what several could say is said in the words that most programs know.
constexpr std::array kFirst = {"llama",      "qwen2",     "qwen3",       "mistral",     "mixtral",
                               "qwen2_moe",  "qwen3_moe", "deepseek_v2", "deepseek_v3", "gpt2",
                               "starcoder2", "gemma",     "gemma2"};

bool has_words_for(const ModelSpec& spec) {
  try {
    to_hugging_face(spec);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

// The same router in other words.
std::vector<ModelSpec> spellings(const ModelSpec& spec) {
  std::vector<ModelSpec> all = {spec};
  if (!spec.moe) return all;
  ModelSpec other = spec;
  MixtureOfExperts& moe = *other.moe;
  if (moe.score == RouterScore::kTopKSoftmax) {
    moe.score = RouterScore::kSoftmax;
    moe.normalize_top_k = true;
    all.push_back(other);
  } else if (moe.score == RouterScore::kSoftmax && moe.normalize_top_k) {
    moe.score = RouterScore::kTopKSoftmax;
    moe.normalize_top_k = false;
    all.push_back(other);
  }
  if (spec.moe->num_groups == 1) {  // whose score nobody asks for
    for (size_t i = 0, count = all.size(); i < count; ++i) {
      all.push_back(all[i]);
      GroupScore& score = all.back().moe->group_score;
      score = score == GroupScore::kMax ? GroupScore::kTopTwoSum : GroupScore::kMax;
    }
  }
  return all;
}

}  // namespace

std::optional<ModelSpec> as_family_member(const ModelSpec& spec) {
  std::vector<std::string> names(kFirst.begin(), kFirst.end());
  for (const std::string& name : family_names()) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  }
  for (const std::string& name : names) {
    for (ModelSpec candidate : spellings(spec)) {
      candidate.family = name;
      if (has_words_for(candidate)) return candidate;
    }
  }
  return std::nullopt;
}

}  // namespace qianli::model
