// Mixtures of experts made of dense models ("sparse upcycling": Komatsuzaki et al.,
// arXiv:2212.05055; --moe-use-upcycling of Megatron-LM).
#pragma once

#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

// The model with so many copies of each MLP in its place, behind a router of random weights, of the
// family whose config.json has words for it. Tokens weigh their experts by a softmax over the
// chosen ones, so that it computes what the dense model does. Throws ConfigError for models that
// have experts, and where no family has words for the mixture.
std::unique_ptr<ModelSource> upcycled(std::unique_ptr<ModelSource> dense,
                                      const Upcycling& upcycling);

}  // namespace qianli::convert
