// The options of everything around training, and the sections themselves.
#pragma once

#include "qianli/config/config.h"

namespace qianli::config {

inline constexpr std::string_view kOneRank =
    "this version cannot share the model so yet; leave it at 1";

template <class Visitor>
void ParallelConfig::fields(Visitor& v) {
  v(tensor, {.key = "tensor",
             .help = "Ranks that share each weight matrix.",
             .unit = "ranks",
             .flag = "--tensor-model-parallel-size",
             .min = 1});
  v(tensor_x,
    {.key = "tensor_x",
     .help =
         "Two-dimensional tensor parallelism: of tensor = tensor_x * tensor_y ranks, those that "
         "share heads and MLP widths and, between the blocks, the tokens.",
     .unit = "ranks",
     .flag = "--tp-x",
     .min = 1});
  v(tensor_y,
    {.key = "tensor_y",
     .help = "And those that share the columns of the residual stream and, within a block, the "
             "tokens, over which attention is context parallel; 1: one-dimensional.",
     .unit = "ranks",
     .flag = "--tp-y",
     .min = 1});
  v(tensor_slices,
    {.key = "tensor_slices",
     .help = "Slices of the tokens in which a linear layer's exchange goes on beside its products; "
             "1: the exchange comes before or after.",
     .unit = "slices",
     .flag = "--coc-parallel-num",
     .min = 1,
     .max = 64});
  v(sequence, {.key = "sequence",
               .help = "The ranks of a tensor group share the tokens between the blocks, too.",
               .flag = "--sequence-parallel"});
  v(pipeline, {.key = "pipeline",
               .help = "Pipeline stages.",
               .unit = "ranks",
               .flag = "--pipeline-model-parallel-size",
               .min = 1,
               .max = 65536});
  v(pipeline_chunks,
    {.key = "pipeline_chunks",
     .help = "Parts of the model on each stage (virtual pipeline): shorter waiting for more "
             "messages.",
     .unit = "chunks",
     .flag = "--num-virtual-stages-per-pipeline-rank",
     .min = 1,
     .max = 65536});
  v(schedule,
    {.key = "schedule",
     .help = "The order in which stages compute, see docs/parallelism.md; `auto` is 1f1b, or "
             "interleaved with several chunks.",
     .flag = "--schedules-method",
     .choices = {"auto", "gpipe", "1f1b", "interleaved", "zb-h1", "nanopipe", "dualpipev",
                 "seq1f1b"}});
  v(schedule_group,
    {.key = "schedule_group",
     .help = "Interleaved schedules: microbatches in a row of one chunk; 0: as many as stages.",
     .unit = "microbatches",
     .flag = "--microbatch-group-size-per-virtual-pipeline-stage",
     .min = 0});
  v(schedule_slices,
    {.key = "schedule_slices",
     .help = "seq1f1b: slices of each sequence, which go through the pipeline one after the other.",
     .unit = "slices",
     .flag = "--seq1f1b-splits",
     .min = 1,
     .max = 1024});
  v(schedule_slicing,
    {.key = "schedule_slicing",
     .help = "seq1f1b: slices of equal length (`even`), or of equal work, later ones shorter.",
     .flag = "--seq1f1b-balance-method",
     .choices = {"even", "work"}});
  v(detach_weight_grads,
    {.key = "detach_weight_grads",
     .help = "dualpipev: put off the weights' gradients of the last backward passes.",
     .flag = "--dualpipev-dw-detach"});
  v(recompute, {.key = "recompute",
                .help = "Which chunks keep only their input for the backward pass and compute the "
                        "rest again: `none`; `full`, all; `in_advance`, all but the last of the "
                        "model; `in_bubble`, as many as fit into the time a stage waits.",
                .choices = {"none", "full", "in_advance", "in_bubble"}});
  v(layers,
    {.key = "layers",
     .help = "Layers of each stage (`1,3,3,1`), of each chunk of each stage (`[[1,3],[2,2]]`) or "
             "a layout of all chunks (`Ett|tt|ttt|tmL`: E embedding, t layer, m multi-token "
             "prediction, L loss), instead of the keys below.",
     .flag = "--pipeline-model-parallel-layout",
     .absent = "as many on each"});
  v(first_stage_layers, {.key = "first_stage_layers",
                         .help = "Layers of the first stage; the others share the rest.",
                         .flag = "--decoder-first-pipeline-num-layers",
                         .absent = "as the others",
                         .min = 0});
  v(last_stage_layers, {.key = "last_stage_layers",
                        .help = "Layers of the last stage; the others share the rest.",
                        .flag = "--decoder-last-pipeline-num-layers",
                        .absent = "as the others",
                        .min = 0});
  v(count_embedding, {.key = "count_embedding",
                      .help = "The embedding counts as a layer of the first stage.",
                      .flag = "--account-for-embedding-in-pipeline-split"});
  v(count_loss, {.key = "count_loss",
                 .help = "The loss counts as a layer of the last stage.",
                 .flag = "--account-for-loss-in-pipeline-split"});
  v(noop_layers, {.key = "noop_layers",
                  .help = "Positions that do nothing, like `0,9`, among all layers with these "
                          "counted: they make the number of layers even.",
                  .flag = "--noop-layers"});
  v(context, {.key = "context",
              .help = "Ranks that share each sequence.",
              .unit = "ranks",
              .flag = "--context-parallel-size",
              .min = 1});
  v(context_algorithm,
    {.key = "context_algorithm",
     .help = "How they attend over it: ring passes keys round, ulysses exchanges heads, hybrid "
             "exchanges heads among neighbours and passes keys round across them, kv_allgather "
             "gathers all keys, adaptive sends only keys or queries that the mask asks for (packed "
             "documents, sliding windows).",
     .flag = "--context-parallel-algo",
     .choices = {"ring", "ulysses", "hybrid", "kv_allgather", "adaptive"}});
  v(context_ulysses, {.key = "context_ulysses",
                      .help = "With context_algorithm hybrid or adaptive: neighbours that exchange "
                              "heads.",
                      .unit = "ranks",
                      .flag = "--ulysses-degree-in-cp",
                      .min = 1});
  v(context_window, {.key = "context_window",
                     .help = "With a ring: keys go round within windows of so many ranks before "
                             "they go on to the next window (a machine's ranks, say).",
                     .unit = "ranks",
                     .flag = "--cp-window-size",
                     .min = 1});
  v(context_kv_cache,
    {.key = "context_kv_cache",
     .help = "What of other ranks' keys and values stays in memory for the backward pass, instead "
             "of coming again: none, half (keys) or full.",
     .flag = "--context-parallel-kv-cache-policy",
     .choices = {"none", "half", "full"}});
  v(context_cache_interval,
    {.key = "context_cache_interval",
     .help = "With context_kv_cache: layers without one between two layers that have it; 0: all "
             "layers have it.",
     .unit = "layers",
     .flag = "--context-parallel-cache-interval",
     .min = 0});
  v(expert, {.key = "expert",
             .help = "Ranks that share the experts.",
             .unit = "ranks",
             .flag = "--expert-model-parallel-size",
             .min = 1});
  v(expert_tensor, {.key = "expert_tensor",
                    .help = "Ranks that share each expert; 0: as tensor.",
                    .unit = "ranks",
                    .flag = "--expert-tensor-parallel-size",
                    .min = 0});
  v(expert_dispatcher,
    {.key = "expert_dispatcher",
     .help = "How tokens come to experts of other ranks: the wanted rows, or all tokens to all.",
     .flag = "--moe-token-dispatcher-type",
     .choices = {"all_to_all", "all_gather"}});
  v(zero,
    {.key = "zero",
     .help = "What the data-parallel ranks share out: 0 nothing, 1 the optimizer's states and "
             "the exact weights (ZeRO-1), 2 gradients as well, 3 the weights for computing, too "
             "(FSDP): a layer is whole while it is used.",
     .flag = "--use-distributed-optimizer",
     .min = 0,
     .max = 3});
  v(zero_ranks, {.key = "zero_ranks",
                 .help = "Neighbours among these ranks that share it out (HSDP); 0: all. The "
                         "others keep the same, and gradients are summed across.",
                 .unit = "ranks",
                 .min = 0});
  v(zero_parameter_ranks,
    {.key = "zero_parameter_ranks",
     .help = "With zero 3: neighbours (the ranks of a machine, say) from which a layer comes "
             "when it is used again in a step (LayerZeRO); 0: from all that share it.",
     .unit = "ranks",
     .min = 0});
  v(reduce_dtype, {.key = "reduce_dtype",
                   .help = "The type in which gradients travel and are summed over the ranks; fp32 "
                           "is fp64 with precision=fp64.",
                   .choices = {"fp32", "bf16"}});
  v(overlap_grad_reduce, {.key = "overlap_grad_reduce",
                          .help = "Sum gradients over the ranks while the backward pass goes on.",
                          .flag = "--overlap-grad-reduce"});
  v(overlap_param_gather,
    {.key = "overlap_param_gather",
     .help = "With zero from 1 on: weights of other ranks come while this one computes, in the "
             "order in which they are used.",
     .flag = "--overlap-param-gather"});
  v(gather_ahead, {.key = "gather_ahead",
                   .help = "So many layers (of zero 1 and 2: buckets) are on their way before "
                           "they are used.",
                   .unit = "layers",
                   .min = 1});
  v(timeout_seconds,
    {.key = "timeout_seconds",
     .help = "How long a rank waits for another one in a collective before the job ends.",
     .unit = "seconds",
     .min = 0,
     .max = 1e6,
     .open_min = true});
  v(communicators,
    {.key = "communicators",
     .help =
         "What the communicators of single groups of ranks are asked to be like, as in "
         "\"tensor:ctas=8,buffer=4M;experts:ctas=4-16\": thread blocks (ctas, NCCL) and staging "
         "memory (buffer; HCCL's is for each group, NCCL's one for all). Gloo has neither.",
     .flag = "--hccl-group-buffer"});
  v(adaptive_buffers,
    {.key = "adaptive_buffers",
     .help = "On NPUs: HCCL's staging memory for each group as large as its messages, where "
             "parallel.communicators does not say.",
     .flag = "--hccl-group-buffer-adaptive"});
  v(expert_buffer_factor,
    {.key = "expert_buffer_factor",
     .help = "With parallel.adaptive_buffers: what the experts' buffer is multiplied with for "
             "tokens that are not spread evenly; -1: 200 MB whatever the model.",
     .flag = "--hccl-ep-group-buffer-adaptive-factor",
     .min = -1,
     .max = 1000});
  v(aiqos, {.key = "aiqos",
            .help = "Priorities of traffic on an NPU's network. Accepted, and without effect: "
                    "HCCL is not asked for them.",
            .flag = "--aiqos"});
  v(bucket_elements, {.key = "bucket_elements",
                      .help = "Gradients that travel together.",
                      .unit = "elements",
                      .flag = "--ddp-bucket-size",
                      .min = 1});
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
  v(moe_per_layer_logging, {.key = "moe_per_layer_logging",
                            .help = "Balancing losses and load of each layer with experts too, in "
                                    "metrics.jsonl (moe_layers) and TensorBoard.",
                            .flag = "--moe-per-layer-logging"});
  v(trace_step_start, {.key = "trace_step_start",
                       .help = "First step whose work and messages go to trace/rank_R.json of the "
                               "run folder, for chrome://tracing or Perfetto; 0: none.",
                       .unit = "steps",
                       .flag = "--profile-step-start",
                       .min = 0});
  v(trace_step_end, {.key = "trace_step_end",
                     .help = "The last such step; 0: only the first one.",
                     .unit = "steps",
                     .flag = "--profile-step-end",
                     .min = 0});
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
  v(tune, {.key = "tune", .help = "What of the model training changes."});
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
             .help = "Device to compute on; auto is a CUDA device where there is one. Of several "
                     "ranks on a machine each takes its own.",
             .choices = {"auto", "cpu", "cuda", "npu"}});
}

}  // namespace qianli::config
