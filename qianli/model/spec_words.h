// The words of the enumerations of a spec.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "qianli/model/spec.h"

namespace qianli::model {

template <class Enum>
using Word = std::pair<Enum, std::string_view>;

// All words of the enumeration; the value is not looked at.
std::span<const Word<NormKind>> words_of(NormKind);
std::span<const Word<NormPlacement>> words_of(NormPlacement);
std::span<const Word<QkNorm>> words_of(QkNorm);
std::span<const Word<PositionKind>> words_of(PositionKind);
std::span<const Word<Activation>> words_of(Activation);
std::span<const Word<RopeScalingKind>> words_of(RopeScalingKind);
std::span<const Word<MixerKind>> words_of(MixerKind);
std::span<const Word<FeedForwardKind>> words_of(FeedForwardKind);
std::span<const Word<RouterScore>> words_of(RouterScore);
std::span<const Word<GroupScore>> words_of(GroupScore);
std::span<const Word<RouterDtype>> words_of(RouterDtype);
std::span<const Word<TokenDropPolicy>> words_of(TokenDropPolicy);
std::span<const Word<AttentionGate>> words_of(AttentionGate);

// False, and `value` stays, where no value has this word.
template <class Enum>
bool from_word(std::string_view word, Enum& value) {
  for (const auto& [key, name] : words_of(Enum{})) {
    if (name == word) {
      value = key;
      return true;
    }
  }
  return false;
}

}  // namespace qianli::model
