#include <fmt/core.h>

#include <array>
#include <limits>

#include "qianli/convert/megatron/argument_readers.h"

namespace qianli::convert {
namespace {

constexpr double kNoneAlone = std::numeric_limits<double>::quiet_NaN();

// An argument that does nothing where it is absent, None, or `neutral`; False and True are 0 and 1.
struct Unfollowed {
  const char* name;
  double neutral;
  const char* expected;
};

// Of megatron/core/transformer/transformer_config.py and megatron/training/arguments.py
// (core_v0.12, and newer ones' where the tensors would not tell), and of MindSpeed-LLM's arguments
// (2.2).
constexpr std::array kUnfollowed = {
    Unfollowed{"apply_residual_connection_post_layernorm", 0,
               "False: residuals from before the norms"},
    Unfollowed{"no_post_layer_norm", 0, "False: a final norm"},
    Unfollowed{"heterogeneous_layers_config_path", kNoneAlone, "none: layers that are alike"},
    Unfollowed{"softmax_scale", kNoneAlone, "none: the softmax's usual scale"},
    Unfollowed{"window_size", 0, "none (MindSpeed's sliding_window is followed)"},
    Unfollowed{"window_attn_skip_freq", kNoneAlone, "none: the window in every layer"},
    Unfollowed{"cla_share_factor", 1, "1: shared keys are not told by arguments"},
    Unfollowed{"share_kvstates", 0, "False: keys and values of each layer's own"},
    Unfollowed{"qk_l2_norm", 0, "False: no norms of queries and keys without weights"},
    Unfollowed{"attention_output_gate", 0, "False: attention without a gate"},
    Unfollowed{"experimental_attention_variant", kNoneAlone, "none"},
    Unfollowed{"no_rope_freq", kNoneAlone, "none: rotary positions in every layer"},
    Unfollowed{"dynamic_factor", 1, "1: a rotary base that does not depend on the training length"},
    Unfollowed{"full_attention_interval", 0, "none: linear attention is not told by arguments"},
    Unfollowed{"hybrid_attention_ratio", 0, "none: state-space layers are not told by arguments"},
    Unfollowed{"hybrid_mlp_ratio", 0, "none: state-space layers are not told by arguments"},
    Unfollowed{"hybrid_override_pattern", kNoneAlone,
               "none: state-space layers are not told by arguments"},
    Unfollowed{"quick_geglu", 0, "False: another activation"},
    Unfollowed{"glu_linear_offset", 0, "0"},
    Unfollowed{"activation_func_clamp_value", kNoneAlone, "none: an activation without a limit"},
    Unfollowed{"expert_interval", 1, "1: experts in every layer"},
    Unfollowed{"num_zero_experts", 0, "none"},
    Unfollowed{"shared_expert_gate_output_dimension", 1, "1: a gate of one number per token"},
    Unfollowed{"moe_apply_probs_on_input", 0, "False: weights on the experts' outputs"},
    Unfollowed{"moe_latent_size", kNoneAlone, "none: experts of the hidden size"},
    Unfollowed{"moe_router_topk_limited_devices", kNoneAlone,
               "none: experts chosen whatever their devices"},
    Unfollowed{"moe_router_force_load_balancing", 0, "False: experts chosen by the router"},
    Unfollowed{"fix_router", 0, "False: experts chosen by the router"},
};

}  // namespace

void refuse_unfollowed(const StoredArguments& args) {
  for (const Unfollowed& argument : kUnfollowed) {
    const formats::Value* value = args.find(argument.name);
    if (!value) continue;
    const auto flag = value->as_bool();
    const auto number = flag ? std::optional<double>(*flag ? 1.0 : 0.0) : value->as_float();
    if (!number || *number != argument.neutral) args.fail(argument.name, argument.expected);
  }
  const formats::Value* softmax = args.find("softmax_type");
  if (softmax && args.text("softmax_type") != "vanilla") args.fail("softmax_type", "vanilla");
}

}  // namespace qianli::convert
