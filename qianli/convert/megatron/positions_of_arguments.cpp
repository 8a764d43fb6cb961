// Megatron-core core_v0.12, models/common/embeddings and transformer/multi_latent_attention.py;
// MindSpeed-LLM 2.2, tasks/models/common.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/log.h"
#include "qianli/convert/megatron/argument_readers.h"

namespace qianli::convert {
namespace {

using model::ModelSpec;
using model::RopeScaling;
using model::RopeScalingKind;

// A whole number that MindSpeed keeps as a float.
int64_t original_positions(const StoredArguments& args, int64_t fallback) {
  const auto number = args.number(
      {"original_max_position_embeddings", "rope_scaling_original_max_position_embeddings"});
  if (!number) return fallback;
  if (*number < 1 || *number > INT32_MAX || *number != std::floor(*number))
    args.fail("original_max_position_embeddings", "a positive integer of 32 bits");
  return static_cast<int64_t>(*number);
}

void read_llama3(const StoredArguments& args, RopeScaling& scaling) {
  scaling.kind = RopeScalingKind::kLlama3;
  scaling.low_freq_factor = args.number({"low_freq_factor"}).value_or(1.0);
  scaling.high_freq_factor = args.number({"high_freq_factor"}).value_or(4.0);
}

void read_longrope(const StoredArguments& args, RopeScaling& scaling) {
  scaling.kind = RopeScalingKind::kLongrope;
  scaling.short_factor = args.numbers("short_factor");
  scaling.long_factor = args.numbers("long_factor");
  scaling.short_mscale = args.number({"short_mscale"});
  scaling.long_mscale = args.number({"long_mscale"});
  if (args.text("longrope_freqs_type") == "mul") {
    log::warn("convert",
              "{}: args.longrope_freqs_type is mul: some versions of MindSpeed-LLM then left the "
              "frequencies unscaled in training",
              args.source());
  }
}

// Amplitude M(mscale) / M(mscale_all_dim), M(s) = 0.1 s ln(factor) + 1; by default that of yarn.
void read_mindspeed_yarn(const StoredArguments& args, const ModelSpec& spec, RopeScaling& scaling) {
  scaling.kind = RopeScalingKind::kYarn;
  scaling.beta_fast = args.number({"beta_fast", "rope_scaling_beta_fast"}).value_or(32.0);
  scaling.beta_slow = args.number({"beta_slow", "rope_scaling_beta_slow"}).value_or(1.0);
  const double mscale = args.number({"rope_scaling_mscale"}).value_or(1.0);
  const double all = args.number({"rope_scaling_mscale_all_dim"}).value_or(0.0);
  if (all > 0) {
    scaling.mscale = mscale;
    scaling.mscale_all_dim = all;
  } else if (mscale != 1.0) {
    scaling.attention_factor = 0.1 * mscale * std::log(std::max(1.0, scaling.factor)) + 1.0;
  }
  if (has_latent_attention(args)) return;
  const double taken = static_cast<double>(spec.max_position_embeddings) /
                       static_cast<double>(std::max<int64_t>(1, scaling.original_max_positions));
  if (scaling.factor == taken) return;
  args.fail("rope_scaling_factor",
            fmt::format("{}, max_position_embeddings over the original ones: what MindSpeed takes "
                        "without latent attention, whatever this says",
                        taken));
}

void read_mindspeed_scaling(const StoredArguments& args, ModelSpec& spec) {
  RopeScaling& scaling = spec.rope.scaling;
  const std::string kind = args.text("rope_scaling_type");
  if (kind.empty() || kind == "plm") return;  // plm: not scaled
  scaling.original_max_positions = original_positions(args, 0);
  if (kind == "longrope") return read_longrope(args, scaling);
  scaling.factor = args.needed_number({"rope_scaling_factor"});
  if (kind == "llama3") return read_llama3(args, scaling);
  if (kind == "yarn") return read_mindspeed_yarn(args, spec, scaling);
  args.fail("rope_scaling_type", "llama3, yarn, longrope, plm or none");
}

// MLATransformerConfig: yarn unless rope_type says otherwise, over max_position_embeddings, to
// which newer versions give a name of its own.
void read_latent_scaling(const StoredArguments& args, ModelSpec& spec) {
  const std::string kind = args.text("rope_type");
  if (!kind.empty() && kind != "yarn" && kind != "rope") args.fail("rope_type", "rope or yarn");
  const double factor = args.number({"rotary_scaling_factor"}).value_or(1.0);
  if (factor == 1.0) return;
  if (kind == "rope") {
    args.fail("rotary_scaling_factor",
              "1 with rope_type rope, where it would scale the softmax alone");
  }
  const double mscale = args.number({"mscale"}).value_or(1.0);
  if (args.number({"mscale_all_dim"}).value_or(0.0) != mscale) {
    args.fail("mscale_all_dim",
              fmt::format("{}, as mscale: versions of Megatron-core differ in which of them scales "
                          "the softmax",
                          mscale));
  }
  RopeScaling& scaling = spec.rope.scaling;
  scaling = {.kind = RopeScalingKind::kYarn,
             .factor = factor,
             .original_max_positions = original_positions(args, spec.max_position_embeddings),
             .beta_fast = args.number({"beta_fast"}).value_or(32.0),
             .beta_slow = args.number({"beta_slow"}).value_or(1.0)};
  if (mscale == 0) {
    scaling.attention_factor = 1.0;
  } else {
    scaling.mscale = scaling.mscale_all_dim = mscale;
  }
  const double reach = std::round(static_cast<double>(scaling.original_max_positions) * factor);
  if (reach > static_cast<double>(spec.max_position_embeddings) && reach <= INT32_MAX)
    spec.max_position_embeddings = static_cast<int64_t>(reach);
}

void read_scaling(const StoredArguments& args, ModelSpec& spec) {
  RopeScaling& scaling = spec.rope.scaling;
  const bool latent = has_latent_attention(args);
  if (args.has("rope_scaling_type")) {
    read_mindspeed_scaling(args, spec);
  } else if (latent) {
    read_latent_scaling(args, spec);
  }
  if (args.flag({"use_rope_scaling"}) && !latent) {  // Megatron's own, fixed but for the factor
    scaling = {.kind = RopeScalingKind::kLlama3,
               .factor = args.number({"rope_scaling_factor"}).value_or(8.0),
               .original_max_positions = 8192,
               .low_freq_factor = 1.0,
               .high_freq_factor = 4.0};
  }
  const auto linear = args.number({"rotary_seq_len_interpolation_factor"});
  if (!linear || *linear == 1.0) return;
  if (latent || scaling.kind != RopeScalingKind::kNone) {
    args.fail("rotary_seq_len_interpolation_factor",
              "none with latent attention or another scaling");
  }
  scaling.kind = RopeScalingKind::kLinear;
  scaling.factor = *linear;
}

}  // namespace

bool has_latent_attention(const StoredArguments& args) {
  return args.flag({"multi_latent_attention", "multi_head_latent_attention"});
}

void read_positions(const StoredArguments& args, ModelSpec& spec) {
  using model::PositionKind;
  std::string kind = args.text("position_embedding_type");
  const bool latent = has_latent_attention(args);
  if (args.flag({"use_rotary_position_embeddings"}) && !args.flag({"use_glm_rope"})) kind = "rope";
  if (latent && kind == "none") kind = "rope";  // its slice of the heads rotates all the same
  if (latent && kind != "rope") args.fail("position_embedding_type", "rope with latent attention");
  if (kind == "rope") {
    spec.position = PositionKind::kRotary;
    spec.rope.base = args.needed_number({"rotary_base", "rope_theta"});
    spec.rope.fraction = args.number({"rotary_percent", "partial_rotary_factor"}).value_or(1.0);
    spec.rope.interleaved = args.flag({"rotary_interleaved"});
    if (args.flag({"use_glm_rope"})) {
      spec.rope.fraction = 0.5;
      spec.rope.interleaved = true;
    }
    if (latent && spec.rope.fraction != 1.0) args.fail("rotary_percent", "1 with latent attention");
    read_scaling(args, spec);
  } else if (kind == "learned_absolute") {
    spec.position = PositionKind::kLearned;
  } else if (kind == "alibi" || kind == "none") {
    spec.position = kind == "alibi" ? PositionKind::kAlibi : PositionKind::kNone;
  } else {
    args.fail("position_embedding_type", "rope, learned_absolute, alibi or none");
  }
}

}  // namespace qianli::convert
