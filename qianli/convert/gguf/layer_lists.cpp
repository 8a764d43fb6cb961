#include "qianli/convert/gguf/layer_lists.h"

#include <algorithm>
#include <optional>

namespace qianli::convert {
namespace {

using model::MixerKind;
using model::ModelSpec;

constexpr const char* kHeads = "attention.head_count";
constexpr const char* kGroups = "attention.head_count_kv";
constexpr const char* kWindow = "attention.sliding_window";
constexpr const char* kPattern = "attention.sliding_window_pattern";
constexpr const char* kExpertLimits = "swiglu_clamp_exp";
constexpr const char* kLimits = "swiglu_clamp_shexp";

struct Lists {
  const GgufKeys& keys;
  const std::string& prefix;
  int64_t layers;

  template <class T>
  void check_length(const std::string& key, const std::vector<T>& list) const {
    if (std::ssize(list) < layers) keys.refuse(key, "a number for each layer");
  }
  std::vector<int64_t> integers(const char* name) const {
    auto list = keys.integers(prefix + name, layers);
    check_length(prefix + name, list);
    return list;
  }
  std::vector<double> limits(const char* name) const {
    const std::string key = prefix + name;
    auto list = keys.numbers(key);
    if (list.empty()) return {};
    check_length(key, list);
    list.resize(static_cast<size_t>(layers));
    return list;
  }
  // What all layers that slide, or none of which does, have in `list`; nothing: there are none.
  std::optional<int64_t> of_kind(const char* name, const std::vector<int64_t>& list,
                                 const std::vector<int64_t>& slides, bool sliding) const {
    std::optional<int64_t> found;
    for (size_t l = 0; l < static_cast<size_t>(layers); ++l) {
      if ((slides[l] != 0) != sliding) continue;
      if (found && *found != list[l]) {
        keys.refuse(prefix + name, "the same number for all layers with a window, or without");
      }
      found = list[l];
    }
    return found;
  }
};

}  // namespace

void write_layer_lists(const ModelSpec& spec, const std::string& prefix, GgufKeys& keys) {
  std::vector<int32_t> heads, groups, slides;
  std::vector<float> limits, expert_limits;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const model::LayerSpec layer = spec.layer(l);
    heads.push_back(static_cast<int32_t>(layer.num_heads));
    groups.push_back(static_cast<int32_t>(layer.num_groups));
    slides.push_back(layer.mixer == MixerKind::kSlidingAttention);
    limits.push_back(static_cast<float>(layer.activation_limit));
    expert_limits.push_back(static_cast<float>(layer.expert_activation_limit));
  }
  keys.set(prefix + kHeads, std::move(heads));
  keys.set(prefix + kGroups, std::move(groups));
  keys.set(prefix + kWindow, spec.sliding_window.value_or(0));
  keys.set(prefix + kPattern, std::move(slides));
  if (spec.activation_limit.empty()) return;
  keys.set(prefix + kLimits, std::move(limits));
  keys.set(prefix + kExpertLimits, std::move(expert_limits));
}

void read_layer_lists(const GgufKeys& keys, const std::string& prefix, ModelSpec& spec) {
  const Lists lists{keys, prefix, spec.num_layers};
  const auto slides = lists.integers(kPattern);
  const auto heads = lists.integers(kHeads), groups = lists.integers(kGroups);
  const auto of = [&](const char* name, const std::vector<int64_t>& list, int64_t& whole,
                      std::optional<int64_t>& sliding) {
    sliding = lists.of_kind(name, list, slides, true);
    whole = lists.of_kind(name, list, slides, false).value_or(sliding.value_or(0));
    if (sliding == whole) sliding.reset();
  };
  of(kHeads, heads, spec.num_attention_heads, spec.sliding_num_attention_heads);
  of(kGroups, groups, spec.num_query_groups, spec.sliding_num_query_groups);
  spec.layer_pattern.clear();
  for (size_t l = 0; l < static_cast<size_t>(spec.num_layers); ++l) {
    spec.layer_pattern.push_back(slides[l] ? MixerKind::kSlidingAttention : MixerKind::kAttention);
  }
  spec.sliding_window = keys.integer(prefix + kWindow);
  spec.activation_limit = lists.limits(kLimits);
  if (spec.moe) spec.moe->activation_limit = lists.limits(kExpertLimits);
}

}  // namespace qianli::convert
