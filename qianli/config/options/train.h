// The options of `data`, `train` and `optim`.
#pragma once

#include "qianli/config/config.h"
#include "qianli/config/options/instruction.h"

namespace qianli::config {

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
             "a list of these, each as a path or as {path: PATH, weight: NUMBER}. For fine-tuning: "
             "files or folders of rows, or the prefix of prepared instruction data.",
     .flag = "--data-path"});
  v(tokenizer, {.key = "tokenizer",
                .help = "Folder with a tokenizer (tokenizer.json, tokenizer.model, tiktoken ranks, "
                        "vocab files), or such a file. Not needed for .bin/.idx data.",
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
     .help = "End every document of a text or JSONL file with the end-of-document token; of "
             "instruction data, one more end of text behind each sample.",
     .flag = "--append-eod",
     .absent = "yes for documents, no for instruction data"});
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
  instruction.fields(v);
  v(packing,
    {.key = "packing",
     .help = "Fine-tuning: whole samples put into rows of at most data.sequence_length tokens, "
             "which never see each other. greedy: one after the other as they come; best_fit: so "
             "that few rows result.",
     .choices = {"none", "greedy", "best_fit"}});
  v(bad_rows, {.key = "bad_rows",
               .help = "Fine-tuning: rows that cannot be used are told and skipped, or fail the "
                       "run.",
               .choices = {"skip", "fail"}});
}

template <class Visitor>
void TrainConfig::fields(Visitor& v) {
  v(steps, {.key = "steps",
            .help = "Optimizer steps of the whole run; to train, these or train.epochs are given.",
            .unit = "steps",
            .flag = "--train-iters",
            .min = 0});
  v(epochs, {.key = "epochs",
             .help = "Fine-tuning: passes over the samples, in the place of train.steps; 0: steps "
                     "are given.",
             .unit = "epochs",
             .min = 0,
             .max = 1 << 20});
  v(micro_batch_size,
    {.key = "micro_batch_size",
     .help = "Samples of one forward and backward pass; decides the memory needed.",
     .unit = "samples",
     .flag = "--micro-batch-size",
     .min = 1,
     .max = 1 << 20});
  v(micro_batch_tokens,
    {.key = "micro_batch_tokens",
     .help = "Fine-tuning: a microbatch holds as many samples (or packed rows) of a step as fit "
             "into this many tokens, similar work on all ranks, in the place of "
             "train.micro_batch_size; 0: off.",
     .unit = "tokens",
     .min = 0});
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
  v(attention_dropout, {.key = "attention_dropout",
                        .help = "Share of the attention's probabilities that training drops.",
                        .flag = "--attention-dropout",
                        .min = 0,
                        .max = 0.99});
  v(hidden_dropout,
    {.key = "hidden_dropout",
     .help = "Share of what attention and feed-forward blocks add to the residual stream that "
             "training drops.",
     .flag = "--hidden-dropout",
     .min = 0,
     .max = 0.99});
  v(embedding_dropout,
    {.key = "embedding_dropout",
     .help = "Share of the embedding that training drops; in Megatron it is hidden_dropout.",
     .min = 0,
     .max = 0.99});
  v(neftune_alpha,
    {.key = "neftune_alpha",
     .help = "NEFTune: training adds noise to the embeddings, uniform within alpha / sqrt(L h) of "
             "zero for a sample of L tokens and hidden size h; 0: none.",
     .min = 0});
  v(loss_normalization,
    {.key = "loss_normalization",
     .help = "The loss of a step is the mean over all its tokens with a label (token), or the "
             "mean over microbatches of their means (microbatch, as MindSpeed-LLM).",
     .flag = "--calculate-per-token-loss",
     .choices = {"token", "microbatch"}});
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

}  // namespace qianli::config
