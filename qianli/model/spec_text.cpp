// Specs as text: names of the switches, and how two specs differ.
#include <fmt/core.h>

#include <array>
#include <map>

#include "qianli/model/spec_fields.h"
#include "qianli/model/spec_words.h"

namespace qianli::model {
namespace {

constexpr std::array kNormKinds{Word<NormKind>{NormKind::kRmsNorm, "RMSNorm"},
                                Word<NormKind>{NormKind::kLayerNorm, "LayerNorm"}};
constexpr std::array kPlacements{Word<NormPlacement>{NormPlacement::kPre, "pre"},
                                 Word<NormPlacement>{NormPlacement::kSandwich, "sandwich"},
                                 Word<NormPlacement>{NormPlacement::kParallel, "parallel"},
                                 Word<NormPlacement>{NormPlacement::kParallelTwo, "parallel_two"}};
constexpr std::array kQkNorms{Word<QkNorm>{QkNorm::kNone, "none"},
                              Word<QkNorm>{QkNorm::kHead, "head"},
                              Word<QkNorm>{QkNorm::kHeadAfterRotary, "head_after_rotary"},
                              Word<QkNorm>{QkNorm::kProjection, "projection"},
                              Word<QkNorm>{QkNorm::kLayerNormPerHead, "layer_norm_per_head"}};
constexpr std::array kPositions{Word<PositionKind>{PositionKind::kRotary, "rotary"},
                                Word<PositionKind>{PositionKind::kLearned, "learned"},
                                Word<PositionKind>{PositionKind::kAlibi, "alibi"},
                                Word<PositionKind>{PositionKind::kNone, "none"}};
constexpr std::array kActivations{Word<Activation>{Activation::kSilu, "silu"},
                                  Word<Activation>{Activation::kGelu, "gelu"},
                                  Word<Activation>{Activation::kGeluTanh, "gelu_tanh"},
                                  Word<Activation>{Activation::kRelu, "relu"},
                                  Word<Activation>{Activation::kRelu2, "relu2"},
                                  Word<Activation>{Activation::kClampedSwiglu, "clamped_swiglu"}};
constexpr std::array kScalings{Word<RopeScalingKind>{RopeScalingKind::kNone, "default"},
                               Word<RopeScalingKind>{RopeScalingKind::kLinear, "linear"},
                               Word<RopeScalingKind>{RopeScalingKind::kDynamic, "dynamic"},
                               Word<RopeScalingKind>{RopeScalingKind::kNtkAlpha, "ntk_alpha"},
                               Word<RopeScalingKind>{RopeScalingKind::kLlama3, "llama3"},
                               Word<RopeScalingKind>{RopeScalingKind::kYarn, "yarn"},
                               Word<RopeScalingKind>{RopeScalingKind::kLongrope, "longrope"}};
constexpr std::array kMixers{Word<MixerKind>{MixerKind::kAttention, "attention"},
                             Word<MixerKind>{MixerKind::kSlidingAttention, "sliding_attention"},
                             Word<MixerKind>{MixerKind::kSparseCompressed, "sparse_compressed"},
                             Word<MixerKind>{MixerKind::kHeavyCompressed, "heavy_compressed"},
                             Word<MixerKind>{MixerKind::kGatedDeltaNet, "gated_delta_net"},
                             Word<MixerKind>{MixerKind::kMamba2, "mamba2"},
                             Word<MixerKind>{MixerKind::kNone, "none"}};
constexpr std::array kFeedForwards{Word<FeedForwardKind>{FeedForwardKind::kDense, "dense"},
                                   Word<FeedForwardKind>{FeedForwardKind::kMoe, "moe"},
                                   Word<FeedForwardKind>{FeedForwardKind::kNone, "none"}};
constexpr std::array kScores{Word<RouterScore>{RouterScore::kSoftmax, "softmax"},
                             Word<RouterScore>{RouterScore::kTopKSoftmax, "top_k_softmax"},
                             Word<RouterScore>{RouterScore::kSigmoid, "sigmoid"},
                             Word<RouterScore>{RouterScore::kSqrtSoftplus, "sqrt_softplus"},
                             Word<RouterScore>{RouterScore::kSparseMixer, "sparse_mixer"}};
constexpr std::array kGroupScores{Word<GroupScore>{GroupScore::kMax, "max"},
                                  Word<GroupScore>{GroupScore::kTopTwoSum, "top_two_sum"}};
constexpr std::array kRouterDtypes{Word<RouterDtype>{RouterDtype::kFloat32, "fp32"},
                                   Word<RouterDtype>{RouterDtype::kFloat64, "fp64"}};
constexpr std::array kDropPolicies{Word<TokenDropPolicy>{TokenDropPolicy::kProbs, "probs"},
                                   Word<TokenDropPolicy>{TokenDropPolicy::kPosition, "position"}};
constexpr std::array kGates{Word<AttentionGate>{AttentionGate::kNone, "none"},
                            Word<AttentionGate>{AttentionGate::kElement, "element"},
                            Word<AttentionGate>{AttentionGate::kHead, "head"}};

template <class Enum>
std::string word(Enum value) {
  for (const auto& [key, name] : words_of(value)) {
    if (key == value) return std::string(name);
  }
  return "unknown";
}

std::map<std::string, std::string> texts_of(ModelSpec spec) {
  std::map<std::string, std::string> texts;
  for (const SpecField& field : fields_of(spec)) texts[field.path] = field_text(field.value);
  return texts;
}

}  // namespace

std::span<const Word<NormKind>> words_of(NormKind) { return kNormKinds; }
std::span<const Word<NormPlacement>> words_of(NormPlacement) { return kPlacements; }
std::span<const Word<QkNorm>> words_of(QkNorm) { return kQkNorms; }
std::span<const Word<PositionKind>> words_of(PositionKind) { return kPositions; }
std::span<const Word<Activation>> words_of(Activation) { return kActivations; }
std::span<const Word<RopeScalingKind>> words_of(RopeScalingKind) { return kScalings; }
std::span<const Word<MixerKind>> words_of(MixerKind) { return kMixers; }
std::span<const Word<FeedForwardKind>> words_of(FeedForwardKind) { return kFeedForwards; }
std::span<const Word<RouterScore>> words_of(RouterScore) { return kScores; }
std::span<const Word<GroupScore>> words_of(GroupScore) { return kGroupScores; }
std::span<const Word<RouterDtype>> words_of(RouterDtype) { return kRouterDtypes; }
std::span<const Word<TokenDropPolicy>> words_of(TokenDropPolicy) { return kDropPolicies; }
std::span<const Word<AttentionGate>> words_of(AttentionGate) { return kGates; }

std::string to_string(NormKind kind) { return word(kind); }
std::string to_string(NormPlacement placement) { return word(placement); }
std::string to_string(QkNorm kind) { return word(kind); }
std::string to_string(PositionKind kind) { return word(kind); }
std::string to_string(Activation activation) { return word(activation); }
std::string to_string(RopeScalingKind kind) { return word(kind); }
std::string to_string(MixerKind kind) { return word(kind); }
std::string to_string(FeedForwardKind kind) { return word(kind); }
std::string to_string(RouterScore score) { return word(score); }
std::string to_string(GroupScore score) { return word(score); }
std::string to_string(RouterDtype dtype) { return word(dtype); }
std::string to_string(TokenDropPolicy policy) { return word(policy); }
std::string to_string(AttentionGate gate) { return word(gate); }

std::vector<FieldDifference> field_differences(const ModelSpec& a, const ModelSpec& b) {
  ModelSpec first = a;
  const auto other = texts_of(b);
  std::vector<FieldDifference> changed;
  const auto say = [&](const std::string& path, const std::string& x, const std::string& y) {
    if (x != y) changed.push_back({path, x, y});
  };
  const auto fields = fields_of(first);
  for (const SpecField& field : fields) {
    const auto found = other.find(field.path);
    say(field.path, field_text(field.value), found == other.end() ? "none" : found->second);
  }
  const auto mine = texts_of(a);
  ModelSpec second = b;
  for (const SpecField& field : fields_of(second)) {
    if (!mine.contains(field.path)) say(field.path, "none", field_text(field.value));
  }
  return changed;
}

std::vector<std::string> differences(const ModelSpec& a, const ModelSpec& b) {
  std::vector<std::string> lines;
  for (const auto& [path, x, y] : field_differences(a, b))
    lines.push_back(fmt::format("{}: {} and {}", path, x, y));
  return lines;
}

}  // namespace qianli::model
