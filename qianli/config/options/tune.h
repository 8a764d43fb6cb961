// The options of `tune`.
#pragma once

#include "qianli/config/config.h"

namespace qianli::config {

template <class Visitor>
void NameMatch::fields(Visitor& v) {
  v(match, {.key = "match",
            .help = "The name of a module as Hugging Face or this program calls it, or the end of "
                    "it from a dot on (q_proj, self_attn.q_proj, linear_qkv), a glob over the "
                    "whole name (*.layers.0.*), or a regular expression in slashes."});
}

template <class Visitor>
void TuneConfig::fields(Visitor& v) {
  v(method, {.key = "method",
             .help = "What training changes: all weights but those that are frozen (full), or "
                     "adapters of low rank beside weights that stay as they are (lora).",
             .choices = {"full", "lora"}});
  v(freeze, {.key = "freeze",
             .help = "Modules and parameters that stay as they are, with tune.method=full."});
  v(freeze_layers, {.key = "freeze_layers",
                    .help = "The embedding and so many of the first layers stay as they are, with "
                            "tune.method=full; nothing goes back through them.",
                    .unit = "layers",
                    .min = 0});
  v(r, {.key = "r", .help = "Rank of the adapters.", .flag = "--lora-r", .min = 1, .max = 1 << 20});
  v(alpha, {.key = "alpha",
            .help = "What adapters add is multiplied by alpha / r.",
            .flag = "--lora-alpha",
            .min = 0,
            .open_min = true});
  v(use_rslora, {.key = "use_rslora", .help = "By alpha / sqrt(r) instead (rsLoRA)."});
  v(use_dora,
    {.key = "use_dora",
     .help = "Trains the lengths of the adapted weights' rows apart from their directions "
             "(DoRA); of dense layers, without tensor parallelism and zero=3."});
  v(target_modules,
    {.key = "target_modules",
     .help = "Which linear layers have an adapter: q_proj, linear_fc1, a pattern, or a list of "
             "these. Where several modules of Hugging Face lie in one of our weights each has an "
             "adapter of its own.",
     .flag = "--lora-target-modules",
     .absent = "every linear layer of the decoder but routers and the output layer"});
  v(layers, {.key = "layers",
             .help = "Layers that have adapters: numbers and ranges, as in \"0-3,7\".",
             .absent = "all"});
  v(modules_to_save,
    {.key = "modules_to_save",
     .help = "Modules that are trained whole beside the adapters, and saved with them "
             "(embed_tokens, lm_head).",
     .flag = "--lora-modules-to-save"});
  v(loraplus_lr_ratio,
    {.key = "loraplus_lr_ratio",
     .help = "The learning rate of the B of each adapter relative to that of A (LoRA+).",
     .min = 0,
     .open_min = true});
  v(lu_lora_final_layer_index,
    {.key = "lu_lora_final_layer_index",
     .help = "Adapters of the layers up to this one learn by a local rule in the forward pass, and "
             "nothing goes back through these layers (LU-LoRA); without tensor and context "
             "parallelism.",
     .flag = "--lu-lora-final-layer-index",
     .absent = "all adapters learn by gradients",
     .min = 0});
  v(lu_lora_lr, {.key = "lu_lora_lr",
                 .help = "The peak learning rate of the local rule; it follows optim.lr_schedule.",
                 .flag = "--lu-lora-lr",
                 .min = 0,
                 .open_min = true});
  v(lu_lora_lr_ratio, {.key = "lu_lora_lr_ratio",
                       .help = "That of the B of each such adapter relative to that of A.",
                       .flag = "--lu-lora-lr-ratio",
                       .min = 0,
                       .open_min = true});
  v(adapter, {.key = "adapter",
              .help = "A PEFT folder whose adapter training goes on from; it must be of the rank "
                      "and the modules that the other options say.",
              .flag = "--lora-load",
              .absent = "A is drawn, B is zero"});
  v(quantization,
    {.key = "quantization",
     .help = "How the linear layers that stay as they are are kept, with tune.method=lora: 4 bits "
             "(nf4, QLoRA), 8 bits (int8), or as numbers (none). They are made numbers for every "
             "use.",
     .flag = "--qlora",
     .choices = {"none", "nf4", "int8"}});
  v(double_quant,
    {.key = "double_quant", .help = "With nf4: the magnitudes of its blocks in 8 bits, too."});
}

}  // namespace qianli::config
