#include "qianli/model/families/mamba.h"

namespace qianli::model {
namespace {

ForeignNames names() {
  return {
      .optional_prefix = "backbone.",
      .aliases = {{"backbone.embeddings.", "backbone.embedding."}},
      .embedding = "backbone.embeddings",
      .layer = "backbone.layers.{l}.",
      .input_norm = "norm",
      .mamba = {.in = "mixer.in_proj",
                .conv = "mixer.conv1d",
                .norm = "mixer.norm",
                .out = "mixer.out_proj",
                .a_log = "mixer.A_log",
                .d = "mixer.D",
                .dt_bias = "mixer.dt_bias"},
      .final_norm = "backbone.norm_f",
      .output = "lm_head",
  };
}

}  // namespace

const Family& mamba2_family() {
  static const Family family{
      .model_type = "mamba2",
      .architecture = "Mamba2ForCausalLM",
      .traits = {.family = "mamba2",
                 .position = PositionKind::kNone,
                 .layer_pattern = {MixerKind::kMamba2},
                 .feed_forward_pattern = {false},
                 .mamba2 = Mamba2{}},
      .names = names(),
      .keys = mamba_keys(),
      .guards = {{"use_bias", {false}},
                 // Python's infinity, as parse_json and as transformers 5 have it.
                 {"time_step_limit",
                  {Json::array({0.0, nullptr}),
                   Json::array({0.0, Json::object({{"__float__", "Infinity"}})})}}},
      .read = read_mamba,
      .write = write_mamba,
      .silent = {"rescale_prenorm_residual", "residual_in_fp32", "time_step_floor", "time_step_max",
                 "time_step_min", "time_step_rank", "intermediate_size"},
  };
  return family;
}

}  // namespace qianli::model
