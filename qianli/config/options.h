// Every option, once: key, help, unit, range and the Megatron-LM or MindSpeed-LLM flag of the same
// meaning. Included by field.cpp only; the readers, the help and the schema are made from it.
#pragma once

#include "qianli/config/config.h"

namespace qianli::config {

inline constexpr std::string_view kOfModel = "that of the preset or folder";

template <class Visitor>
void ModelConfig::fields(Visitor& v) {
  v(source, {.key = "preset",
             .help = "Name of a preset (`qianli presets`) or a folder with config.json. "
                     "`model: NAME` is short for `model: {preset: NAME}`."});
  v(load_weights,
    {.key = "load_weights",
     .help = "Start from the weights in the folder (true) or from fresh ones (false).",
     .flag = "--load",
     .absent = "true for a folder, false for a preset"});
  v(family, {.key = "family",
             .help = "Architecture family whose switches and names the model follows.",
             .absent = kOfModel,
             .choices = {"gpt2", "llama", "mistral", "qwen2", "qwen3"}});
  v(num_layers, {.key = "num_layers",
                 .help = "Transformer layers.",
                 .flag = "--num-layers",
                 .absent = kOfModel,
                 .min = 1});
  v(hidden_size, {.key = "hidden_size",
                  .help = "Width of the residual stream.",
                  .flag = "--hidden-size",
                  .absent = kOfModel,
                  .min = 1});
  v(ffn_hidden_size, {.key = "ffn_hidden_size",
                      .help = "Inner width of the MLP (of one branch when it is gated).",
                      .flag = "--ffn-hidden-size",
                      .absent = kOfModel,
                      .min = 1});
  v(num_attention_heads, {.key = "num_attention_heads",
                          .help = "Query heads.",
                          .flag = "--num-attention-heads",
                          .absent = kOfModel,
                          .min = 1});
  v(num_query_groups, {.key = "num_query_groups",
                       .help = "Key and value heads; fewer than the query heads shares them.",
                       .flag = "--num-query-groups",
                       .absent = kOfModel,
                       .min = 1});
  v(head_dim, {.key = "head_dim",
               .help = "Size of one attention head.",
               .flag = "--kv-channels",
               .absent = kOfModel,
               .min = 1});
  v(vocab_size, {.key = "vocab_size",
                 .help = "Rows of the embedding.",
                 .unit = "tokens",
                 .flag = "--padded-vocab-size",
                 .absent = kOfModel,
                 .min = 1});
  v(max_position_embeddings, {.key = "max_position_embeddings",
                              .help = "Longest sequence the model is made for.",
                              .unit = "tokens",
                              .flag = "--max-position-embeddings",
                              .absent = kOfModel,
                              .min = 1});
  v(norm_eps, {.key = "norm_eps",
               .help = "Epsilon of the norms.",
               .flag = "--norm-epsilon",
               .absent = kOfModel,
               .min = 0,
               .open_min = true});
  v(rope_base, {.key = "rope_base",
                .help = "Base of the rotary frequencies.",
                .flag = "--rotary-base",
                .absent = kOfModel,
                .min = 0,
                .open_min = true});
  v(init_std, {.key = "init_std",
               .help = "Standard deviation of the normal weight initialisation.",
               .flag = "--init-method-std",
               .absent = kOfModel,
               .min = 0});
  v(sliding_window, {.key = "sliding_window",
                     .help = "A position sees this many last positions, itself included.",
                     .unit = "tokens",
                     .flag = "--sliding-window",
                     .absent = kOfModel,
                     .min = 1});
  v(tie_word_embeddings, {.key = "tie_word_embeddings",
                          .help = "Use the embedding as output projection too.",
                          .flag = "--untie-embeddings-and-output-weights (the opposite)",
                          .absent = kOfModel});
  v(qk_norm, {.key = "qk_norm",
              .help = "Normalise each query and key head before the rotary embedding.",
              .flag = "--qk-layernorm",
              .absent = kOfModel});
  v(qkv_bias, {.key = "qkv_bias",
               .help = "Bias on the query, key and value projections.",
               .flag = "--add-qkv-bias",
               .absent = kOfModel});
}

template <class Visitor>
void DataSource::fields(Visitor& v) {
  v(path, {.key = "path", .help = "Text file, JSONL file, or the prefix of a .bin/.idx pair."});
  v(weight, {.key = "weight",
             .help = "Share of the samples that come from here, relative to the other sources.",
             .min = 0,
             .open_min = true});
}

template <class Visitor>
void DataConfig::fields(Visitor& v) {
  v(path,
    {.key = "path",
     .help = "What to train on: a text file, a JSONL file, the prefix of a .bin/.idx pair, or "
             "a list of these, each as a path or as {path: PATH, weight: NUMBER}.",
     .flag = "--data-path"});
  v(tokenizer, {.key = "tokenizer",
                .help = "Folder with tokenizer.json, or that file. Not needed for .bin/.idx data.",
                .flag = "--tokenizer-name-or-path",
                .absent = "the model's folder"});
  v(sequence_length, {.key = "sequence_length",
                      .help = "Tokens the model sees per sample.",
                      .unit = "tokens",
                      .flag = "--seq-length",
                      .min = 1,
                      .max = 1 << 24});
  v(split, {.key = "split",
            .help = "Proportions of training, validation and test documents.",
            .flag = "--split"});
  v(seed, {.key = "seed",
           .help = "Seed of the order of samples.",
           .flag = "--seed",
           .absent = "train.seed",
           .min = 0});
  v(text_key, {.key = "text_key",
               .help = "Field of a JSONL record that holds the text.",
               .flag = "--json-keys"});
  v(append_eod,
    {.key = "append_eod",
     .help = "End every document of a text or JSONL file with the end-of-document token.",
     .flag = "--append-eod"});
  v(eod_mask_loss, {.key = "eod_mask_loss",
                    .help = "Leave positions that hold the end-of-document token out of the loss.",
                    .flag = "--eod-mask-loss"});
  v(reset_position_ids, {.key = "reset_position_ids",
                         .help = "Count positions from 0 again after each end of document.",
                         .flag = "--reset-position-ids"});
  v(reset_attention_mask, {.key = "reset_attention_mask",
                           .help = "Attend only within a document.",
                           .flag = "--reset-attention-mask"});
  v(cache_dir, {.key = "cache_dir",
                .help = "Folder for tokenised text and sample indexes, shared between runs.",
                .flag = "--data-cache-path",
                .absent = "inside the run folder"});
  v(validation_path, {.key = "validation_path",
                      .help = "Separate data for validation; data.path then all goes to training.",
                      .flag = "--valid-data-path",
                      .absent = "the second part of data.split"});
}

template <class Visitor>
void TrainConfig::fields(Visitor& v) {
  v(steps, {.key = "steps",
            .help = "Optimizer steps of the whole run; must be given to train.",
            .unit = "steps",
            .flag = "--train-iters",
            .min = 0});
  v(micro_batch_size,
    {.key = "micro_batch_size",
     .help = "Samples of one forward and backward pass; decides the memory needed.",
     .unit = "samples",
     .flag = "--micro-batch-size",
     .min = 1,
     .max = 1 << 20});
  v(global_batch_size, {.key = "global_batch_size",
                        .help = "Samples of one optimizer step; a multiple of micro_batch_size.",
                        .unit = "samples",
                        .flag = "--global-batch-size",
                        .absent = "train.micro_batch_size",
                        .min = 1,
                        .max = 1 << 24});
  v(seed, {.key = "seed",
           .help = "Seed of weights and, unless data.seed is given, of the order of samples.",
           .flag = "--seed",
           .min = 0});
  v(eval_every, {.key = "eval_every",
                 .help = "Steps between validations; 0 never validates.",
                 .unit = "steps",
                 .flag = "--eval-interval",
                 .min = 0});
  v(eval_batches, {.key = "eval_batches",
                   .help = "Batches of global_batch_size samples per validation.",
                   .unit = "batches",
                   .flag = "--eval-iters",
                   .min = 1});
}

template <class Visitor>
void ParameterGroup::fields(Visitor& v) {
  v(match, {.key = "match",
            .help = "Parameters this is for: a glob over the whole name (`*.bias`), or a regular "
                    "expression in slashes that may match anywhere (`/layers\\.[01]\\./`)."});
  v(lr_scale,
    {.key = "lr_scale", .help = "Multiplies the learning rate; 0 freezes.", .min = 0, .max = 1e6});
  v(weight_decay, {.key = "weight_decay",
                   .help = "Weight decay of these parameters, vectors included.",
                   .absent = "the usual rule: optim.weight_decay for matrices, 0 for vectors",
                   .min = 0});
}

template <class Visitor>
void OptimConfig::fields(Visitor& v) {
  v(name, {.key = "name", .help = "The optimizer.", .flag = "--optimizer", .choices = {"adamw"}});
  v(lr, {.key = "lr", .help = "Peak learning rate.", .flag = "--lr", .min = 0});
  v(min_lr, {.key = "min_lr", .help = "Floor of the learning rate.", .flag = "--min-lr", .min = 0});
  v(lr_schedule,
    {.key = "lr_schedule",
     .help = "How the learning rate goes from lr to min_lr after the warm-up; wsd holds "
             "lr and falls in the last wsd_decay_steps.",
     .flag = "--lr-decay-style",
     .choices = {"constant", "linear", "cosine", "wsd", "inverse_sqrt"}});
  v(warmup_steps, {.key = "warmup_steps",
                   .help = "Steps over which the learning rate rises linearly from 0.",
                   .unit = "steps",
                   .flag = "--lr-warmup-iters",
                   .min = 0});
  v(decay_steps, {.key = "decay_steps",
                  .help = "Step at which the learning rate reaches min_lr.",
                  .unit = "steps",
                  .flag = "--lr-decay-iters",
                  .absent = "train.steps",
                  .min = 1});
  v(wsd_decay_steps, {.key = "wsd_decay_steps",
                      .help = "Length of the fall at the end of the wsd schedule.",
                      .unit = "steps",
                      .flag = "--lr-wsd-decay-iters",
                      .absent = "a tenth of decay_steps with lr_schedule wsd",
                      .min = 1});
  v(wsd_decay_style, {.key = "wsd_decay_style",
                      .help = "Shape of the fall at the end of the wsd schedule.",
                      .flag = "--lr-wsd-decay-style",
                      .choices = {"linear", "cosine", "exponential"}});
  v(weight_decay, {.key = "weight_decay",
                   .help = "Decoupled weight decay; applies to matrices, not to vectors.",
                   .flag = "--weight-decay",
                   .min = 0});
  v(betas, {.key = "betas",
            .help = "Decay rates of the running mean of gradients and of their squares.",
            .flag = "--adam-beta1, --adam-beta2",
            .min = 0,
            .max = 1,
            .open_max = true});
  v(eps, {.key = "eps",
          .help = "Added to the root of the mean square before dividing.",
          .flag = "--adam-eps",
          .min = 0,
          .open_min = true});
  v(clip_grad_norm, {.key = "clip_grad_norm",
                     .help = "Scales gradients down to this global norm; 0 does not clip.",
                     .flag = "--clip-grad",
                     .min = 0});
  v(groups, {.key = "groups",
             .help = "Settings for parameters by name; the first group that matches wins."});
}

inline constexpr std::string_view kOneRank = "this version trains on one rank; leave it at 1";

template <class Visitor>
void ParallelConfig::fields(Visitor& v) {
  v(tensor, {.key = "tensor",
             .help = "Ranks that share each weight matrix.",
             .unit = "ranks",
             .flag = "--tensor-model-parallel-size",
             .min = 1,
             .max = 1,
             .hint = kOneRank});
  v(sequence, {.key = "sequence",
               .help = "Shard norms along the sequence inside the tensor group; needs tensor > 1.",
               .flag = "--sequence-parallel"});
  v(pipeline, {.key = "pipeline",
               .help = "Pipeline stages.",
               .unit = "ranks",
               .flag = "--pipeline-model-parallel-size",
               .min = 1,
               .max = 1,
               .hint = kOneRank});
  v(context, {.key = "context",
              .help = "Ranks that share a sequence.",
              .unit = "ranks",
              .flag = "--context-parallel-size",
              .min = 1,
              .max = 1,
              .hint = kOneRank});
  v(expert, {.key = "expert",
             .help = "Ranks that share the experts.",
             .unit = "ranks",
             .flag = "--expert-model-parallel-size",
             .min = 1,
             .max = 1,
             .hint = kOneRank});
  v(zero, {.key = "zero",
           .help = "ZeRO level: what the data-parallel ranks shard. On one rank 0 and 1 are equal.",
           .flag = "--use-distributed-optimizer",
           .min = 0,
           .max = 1,
           .hint = "this version trains on one rank; use 0 or 1"});
}

template <class Visitor>
void CheckpointConfig::fields(Visitor& v) {
  v(every, {.key = "every",
            .help = "Steps between checkpoints; 0 saves only at the end.",
            .unit = "steps",
            .flag = "--save-interval",
            .min = 0});
  v(keep,
    {.key = "keep", .help = "How many of the last checkpoints to keep; 0 keeps all.", .min = 0});
  v(resume,
    {.key = "resume",
     .help = "Where to go on: `auto` from the newest checkpoint of the run folder if there is "
             "one, `never`, or a checkpoint folder.",
     .flag = "--load"});
  v(asynchronous, {.key = "asynchronous",
                   .help = "Write checkpoints while training goes on.",
                   .flag = "--async-save"});
  v(save_final, {.key = "save_final", .help = "Save when the run ends."});
  v(hugging_face,
    {.key = "hugging_face",
     .help = "At the end also write a Hugging Face folder (config.json, safetensors)."});
}

template <class Visitor>
void LogConfig::fields(Visitor& v) {
  v(every, {.key = "every",
            .help = "Steps between lines on the terminal; metrics.jsonl has every step.",
            .unit = "steps",
            .flag = "--log-interval",
            .min = 1});
  v(tensorboard, {.key = "tensorboard",
                  .help = "Write TensorBoard events to the run folder.",
                  .flag = "--tensorboard-dir"});
  v(report, {.key = "report", .help = "Write report.html to the run folder."});
  v(peak_tflops,
    {.key = "peak_tflops",
     .help = "Peak of the device that model FLOPs utilisation (mfu) is measured against.",
     .unit = "TFLOP/s",
     .absent = "known or measured for the device",
     .min = 0,
     .open_min = true});
}

template <class Visitor>
void RunConfig::fields(Visitor& v) {
  v(dir, {.key = "dir",
          .help = "Run folder: resolved config, metrics, log, checkpoints, report.",
          .flag = "--save",
          .absent = "runs/ and the name of the config file without its ending"});
}

template <class Visitor>
void OpsConfig::fields(Visitor& v) {
  const auto op = [&v](std::optional<std::string>& backend, std::string_view key,
                       std::vector<std::string_view> choices = {"reference", "native", "cuda"}) {
    v(backend, {.key = key,
                .help = "Which implementation serves this op (`qianli backends` lists them).",
                .absent = "the fastest that fits the device and type",
                .choices = std::move(choices)});
  };
  op(embedding, "embedding");
  op(linear, "linear", {"reference", "torch"});
  op(grouped_linear, "grouped_linear", {"reference", "native", "torch"});
  op(permute, "permute", {"reference", "native"});
  op(rms_norm, "rms_norm");
  op(layer_norm, "layer_norm");
  op(rotary, "rotary");
  op(activation, "activation");
  op(attention, "attention", {"reference", "native", "torch"});
  op(cross_entropy, "cross_entropy");
  op(adamw, "adamw");
  op(squared_norm, "squared_norm");
  op(causal_conv1d, "causal_conv1d", {"reference", "native"});
  op(gated_delta_rule, "gated_delta_rule", {"reference", "native", "torch"});
  op(state_space, "state_space", {"reference", "native", "torch"});
}

template <class Visitor>
void Config::fields(Visitor& v) {
  v(model,
    {.key = "model", .help = "The model: a preset, a folder, or either with switches of its own."});
  v(data, {.key = "data", .help = "What the model reads."});
  v(train, {.key = "train", .help = "How long and in which batches to train."});
  v(optim, {.key = "optim", .help = "Optimizer and learning-rate schedule."});
  v(precision, {.key = "precision",
                .help = "Number type of weights and activations; auto is bf16 where the device is "
                        "fast at it and fp32 elsewhere, fp64 is for proofs.",
                .flag = "--bf16",
                .choices = {"auto", "fp32", "bf16", "fp64"}});
  v(parallel, {.key = "parallel", .help = "Sizes of the rank mesh."});
  v(checkpoint, {.key = "checkpoint", .help = "Saving and resuming."});
  v(log, {.key = "log", .help = "What is told about the run, and how often."});
  v(run, {.key = "run", .help = "Where the run lives."});
  v(ops, {.key = "ops", .help = "Implementations chosen by hand, op by op."});
  v(device, {.key = "device",
             .help = "Device to compute on; auto is a CUDA device where there is one.",
             .choices = {"auto", "cpu", "cuda"}});
}

}  // namespace qianli::config
