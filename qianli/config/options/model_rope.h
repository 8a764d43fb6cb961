// The options of `model.rope`.
#pragma once

#include "qianli/config/options/model.h"

namespace qianli::config {

template <class Visitor>
void RopeConfig::fields(Visitor& v) {
  v(base, {.key = "base",
           .help = "Base of the rotary frequencies.",
           .flag = "--rotary-base",
           .absent = kOfModel,
           .min = 0,
           .open_min = true});
  v(fraction, {.key = "fraction",
               .help = "Share of a head that is rotated.",
               .flag = "--rotary-percent",
               .absent = kOfModel,
               .min = 0,
               .max = 1,
               .open_min = true});
  v(interleaved,
    {.key = "interleaved",
     .help = "Rotate neighbouring dimensions as pairs instead of those half a head apart.",
     .flag = "--rotary-interleaved",
     .absent = kOfModel});
  v(scaling, {.key = "scaling", .help = "Rule for sequences longer than those of pre-training."});
}

template <class Visitor>
void RopeScalingConfig::fields(Visitor& v) {
  v(kind, {.key = "kind",
           .help = "Rule of the scaling.",
           .flag = "--rope-scaling-type",
           .absent = kOfModel,
           .choices = {"default", "linear", "dynamic", "ntk_alpha", "llama3", "yarn", "longrope"}});
  v(factor, {.key = "factor",
             .help = "How many times longer; alpha of ntk_alpha.",
             .flag = "--rope-scaling-factor",
             .absent = kOfModel,
             .min = 0,
             .open_min = true});
  v(original_max_positions, {.key = "original_max_positions",
                             .help = "Longest sequence of pre-training.",
                             .unit = "tokens",
                             .flag = "--original-max-position-embeddings",
                             .absent = kOfModel,
                             .min = 1});
  v(low_freq_factor,
    {.key = "low_freq_factor",
     .help = "llama3: waves longer than the original positions by this are divided.",
     .flag = "--low-freq-factor",
     .absent = kOfModel,
     .min = 0,
     .open_min = true});
  v(high_freq_factor,
    {.key = "high_freq_factor",
     .help = "llama3: waves shorter than the original positions by this are kept.",
     .flag = "--high-freq-factor",
     .absent = kOfModel,
     .min = 0,
     .open_min = true});
  v(beta_fast, {.key = "beta_fast",
                .help = "yarn: turns within the original positions above which a wave is kept.",
                .flag = "--beta-fast",
                .absent = kOfModel,
                .min = 0,
                .open_min = true});
  v(beta_slow, {.key = "beta_slow",
                .help = "yarn: turns below which a wave is divided.",
                .flag = "--beta-slow",
                .absent = kOfModel,
                .min = 0,
                .open_min = true});
  v(attention_factor, {.key = "attention_factor",
                       .help = "yarn and longrope: factor of cosines and sines.",
                       .absent = kOfModel,
                       .min = 0,
                       .open_min = true});
  v(truncate, {.key = "truncate",
               .help = "yarn: round the range of waves between to whole dimensions.",
               .absent = kOfModel});
  v(mscale, {.key = "mscale",
             .help = "yarn of DeepSeek: multiplier in the factor of cosines and sines.",
             .flag = "--rope-scaling-mscale",
             .absent = kOfModel,
             .min = 0,
             .open_min = true});
  v(mscale_all_dim, {.key = "mscale_all_dim",
                     .help = "yarn of DeepSeek: multiplier in the scale of the scores.",
                     .flag = "--rope-scaling-mscale-all-dim",
                     .absent = kOfModel,
                     .min = 0,
                     .open_min = true});
  v(short_factor,
    {.key = "short_factor",
     .help = "longrope: one factor per rotated pair up to the original positions, with commas.",
     .flag = "--short-factor",
     .absent = kOfModel});
  v(long_factor, {.key = "long_factor",
                  .help = "longrope: one factor per rotated pair beyond them, with commas.",
                  .flag = "--long-factor",
                  .absent = kOfModel});
  v(short_mscale, {.key = "short_mscale",
                   .help = "longrope: factor of cosines and sines up to the original positions.",
                   .flag = "--short-mscale",
                   .absent = kOfModel,
                   .min = 0,
                   .open_min = true});
  v(long_mscale, {.key = "long_mscale",
                  .help = "longrope: factor of cosines and sines beyond them.",
                  .flag = "--long-mscale",
                  .absent = kOfModel,
                  .min = 0,
                  .open_min = true});
}

}  // namespace qianli::config
