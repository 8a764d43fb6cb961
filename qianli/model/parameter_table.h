// Every parameter of a model, from its ModelSpec. Initialisation, sharding, checkpointing,
// conversion and the documents all read this one table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::model {

enum class Init {
  kZeros,
  kOnes,
  kNormal,
  kNormalScaledByDepth,
  kUniform,       // in (-init_std, init_std)
  kDecay,         // log of a number in (1, 16): A_log
  kTimeStepBias,  // softplus of it lies in (0.001, 0.1), uniform in the logarithm: dt_bias
  kExperts,       // each row as many different numbers below init_std: a table of experts
};
// How tensor-parallel ranks share an axis: it is a row of sections, each a row of `pieces` equal
// pieces of `width`, and every rank takes neighbouring pieces of each section. Where there are
// fewer pieces than ranks, neighbouring ranks share a piece: it is cut further into `finer` parts,
// or held by all of them where that is 1 (the keys and values of grouped queries).
struct CutSection {
  int64_t pieces = 0;
  int64_t width = 1;
  int64_t finer = 1;

  int64_t size() const { return pieces * width; }
};

// A part of a parameter in a Hugging Face folder. The foreign tensor is cut into `slices` of equal
// size along its elements; slice `index` is seen as a matrix of `columns` columns, transposed where
// it is stored [in, out]. Our parameter is seen as a matrix of as many columns. Row r of the part,
// 0 <= r < rows, is our row first_row + r and the foreign row
//   foreign_row + r                                     block == 0
//   foreign_row + (r / block) * stride + r % block      rows that are woven into others; rows is a
//                                                       multiple of block
struct ForeignPiece {
  std::string name;
  std::vector<int64_t> shape;  // of the whole foreign tensor
  int64_t slices = 1;
  int64_t index = 0;
  int64_t columns = 1;  // as stored, before transposing
  bool transposed = false;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t foreign_row = 0;
  int64_t block = 0;
  int64_t stride = 0;

  int64_t elements() const;                 // of the foreign tensor
  int64_t slice_rows() const;               // of a slice, transposed where it is
  int64_t own_columns() const;              // of a row of the part
  int64_t foreign_row_of(int64_t r) const;  // of row r of the part
};

struct ParameterEntry {
  std::string name;            // Megatron-core's: decoder.layers.0.self_attention.linear_qkv.weight
  std::vector<int64_t> shape;  // global, not padded
  Init init = Init::kNormal;
  double init_std = 0.0;        // for the initialisers that have a width, already scaled
  std::vector<CutSection> cut;  // of cut_axis; empty: every rank has all of it
  int cut_axis = 0;
  // The axis that runs along the residual stream, of what is no table of the vocabulary; -1: none.
  int stream_axis = -1;
  // Used within attention or a feed-forward block, which tensor-parallel ranks compute together:
  // where all of them hold it, each gets a part of its gradient.
  bool within_block = false;
  bool expert = false;  // axis 0 runs over the experts of a mixture
  // Decoder layer, -1 outside the layers; those of multi-token prediction come behind the last one.
  int64_t layer = -1;
  bool weight_decay = false;  // matrices yes, vectors no
  // Not trained by gradients and always float32: a router's selection bias.
  bool buffer = false;
  bool integral = false;  // holds whole numbers, which a Hugging Face folder stores as such
  // Where its values stand in a Hugging Face folder, as files are written: covers the parameter
  // once.
  std::vector<ForeignPiece> hugging_face;
  // Another way in which files are read (experts stacked, where they are written one by one).
  std::vector<ForeignPiece> hugging_face_also;
  // Foreign tensors that repeat the parameter whole: written, and not needed when reading.
  std::vector<std::string> hugging_face_copies;

  int64_t elements() const;
};

// In the order of the forward pass: embeddings, layers, final norm, output layer (absent when
// tied). {weight,bias}: the bias where the spec has it, of the first axis' size.
//
//   embedding.word_embeddings.weight                                  [V, h]
//   embedding.word_embeddings.norm.{weight,bias}                      [h]      embedding_norm
//   embedding.position_embeddings.weight                              [P, h]   learned positions
//   decoder.layers.{l}.input_layernorm.{weight,bias}                  [h]
//     (a and g are those of the layer)
//     self_attention.linear_qkv.{weight,bias}           [(a + 2 g) d, h]; [(2 a + 2 g) d, h] with
//     an
//                                                       element gate: per head its queries, then
//                                                       its gates; [a d, h] where key and value are
//                                                       shared
//     self_attention.linear_gate.weight                 [a, h]   head gate
//     self_attention.{q,k}_layernorm.weight             [d], [a d] and [g d], or [a, d] and [g, d]
//     self_attention.core_attention.softmax_offset      [a]      attention sinks
//     self_attention.linear_proj.{weight,bias}          [h, a d]
//   latent attention, in place of linear_qkv:
//     self_attention.linear_q_proj.weight               [a d, h]                    or
//     self_attention.linear_q_down_proj.weight          [q_lora_rank, h]
//     self_attention.q_layernorm.weight                 [q_lora_rank]
//     self_attention.linear_q_up_proj.weight            [a d, q_lora_rank]
//     self_attention.linear_kv_down_proj.weight         [kv_lora_rank + rope, h]
//     self_attention.kv_layernorm.weight                [kv_lora_rank]
//     self_attention.linear_kv_up_proj.weight           [a (nope + v), kv_lora_rank]
//     self_attention.indexer.linear_wq_b.weight         [n_i d_i, q_lora_rank]
//     self_attention.indexer.linear_wk.weight           [d_i, h]
//     self_attention.indexer.k_norm.{weight,bias}       [d_i]
//     self_attention.indexer.linear_weights_proj.weight [n_i, h]
//   compressed attention (c is 2 in sparse layers, whose keys overlap, else 1; R the layer's ratio; G
//   groups of outputs), in place of linear_qkv and linear_proj:
//     self_attention.linear_q_down_proj.weight          [q_lora_rank, h]
//     self_attention.q_layernorm.weight                 [q_lora_rank]
//     self_attention.linear_q_up_proj.weight            [a d, q_lora_rank]
//     self_attention.linear_kv_proj.weight              [d, h]
//     self_attention.kv_layernorm.weight                [d]
//     self_attention.core_attention.softmax_offset      [a]
//     self_attention.compressor.linear_{kv,gate}.weight [c d, h]
//     self_attention.compressor.position_bias           [R, c d]
//     self_attention.compressor.norm.weight             [d]
//     self_attention.indexer.linear_wq_b.weight         [n_i d_i, q_lora_rank]   sparse layers
//     self_attention.indexer.linear_weights_proj.weight [n_i, h]
//     self_attention.indexer.compressor.<as above>      d_i in place of d
//     self_attention.linear_o_down_proj.weight          [G, output_lora_rank, a d / G]
//     self_attention.linear_proj.weight                 [h, G output_lora_rank]
//   hyper-connections (n streams), of each block and of the end:
//     self_attention_hyper_connection.{weight,bias,scale} [(2 + n) n, n h], [(2 + n) n], [3]
//     mlp_hyper_connection.{weight,bias,scale}
//     decoder.hyper_connection.{weight,bias,scale}        [n, n h], [n], [1]
//   gated delta net (K = key_size, W = value_size, n_v value heads), in place of attention:
//     self_attention.in_proj.weight    [2 K + 2 W + 2 n_v, h]  per key head: q, k, its v's, its
//     z's;
//                                                              then per key head: its b's, its a's
//     self_attention.conv1d.weight     [2 K + W, kernel]       channels q, k, v
//     self_attention.{A_log,dt_bias}   [n_v]
//     self_attention.out_norm.weight   [value_head_dim]
//     self_attention.out_proj.weight   [h, W]
//   Mamba-2 (I inner size, G groups, N state size, n heads), in place of attention:
//     mixer.in_proj.weight [2 I + 2 G N + n, h]  z, x, B, C, dt    mixer.conv1d.weight [I + 2 G N,
//     kernel] mixer.conv1d.bias    mixer.{A_log,D,dt_bias} [n]    mixer.norm.weight [I]
//     mixer.out_proj.weight [h, I]
//   decoder.layers.{l}.post_self_attn_layernorm.{weight,bias}         [h]      sandwich
//   decoder.layers.{l}.pre_mlp_layernorm.{weight,bias}                [h]
//     mlp.linear_fc1.{weight,bias}                      [2 f, h] gate, then up; or [f, h]
//     mlp.linear_fc2.{weight,bias}                      [h, f]
//   mixture of experts (E experts of width m), in place of linear_fc1 and linear_fc2:
//     mlp.router.{weight,bias}                          [E, h], [E]
//     mlp.router.expert_bias                            [E]      buffer, selection_bias
//     mlp.router.token_experts                          [V, k]   buffer, in its place in layers that
//                                                       route by token
//     mlp.experts.linear_fc1.{weight,bias}              [E, 2 m, h], [E, 2 m]
//     mlp.experts.linear_fc2.{weight,bias}              [E, h, m], [E, h]
//     mlp.shared_experts.linear_fc1.weight, .linear_fc2.weight, .gate_weight [1, h]
//   a shortcut mixture beside the dense MLP has the same names under moe. instead of mlp.
//   decoder.layers.{l}.post_mlp_layernorm.{weight,bias}               [h]      sandwich
//   decoder.final_layernorm.{weight,bias}                             [h]
//   output_layer.{weight,bias}                                        [V, h]
//   mtp.layers.{j}.{enorm,hnorm,final_layernorm}.weight [h]   mtp.layers.{j}.eh_proj.weight [h, 2
//   h] mtp.layers.{j}.transformer_layer.<the names of a decoder layer>
// E counts zero experts too in the router, not in the experts.
//
// linear_qkv rows are all query rows, then all key rows, then all value rows. (Megatron interleaves
// them by query group; that order only matters when cutting, and is a transform of the name maps.)
std::vector<ParameterEntry> parameter_table(const ModelSpec& spec);

int64_t parameter_count(const ModelSpec& spec);

// What a reader of Hugging Face folders of a family puts up with.
struct ForeignHabits {
  // Names that start with the first prefix may start with any of the others instead ("model.", "",
  // "language_model.model.").
  std::vector<std::string> prefixes;
  // Beginnings and ends of names that are no parameters: buffers, parts of other modalities.
  std::vector<std::string> ignored_prefixes;
  std::vector<std::string> ignored_suffixes;
  // Parts of names that may be spelled otherwise, all together.
  std::vector<std::pair<std::string, std::string>> aliases;
  std::string tied_output;  // may repeat the embedding where the output layer is tied to it
};
ForeignHabits foreign_habits(const ModelSpec& spec);

// Values [first, first + out.size()) of a parameter at the start of training: a pure function of
// (seed, name, index in the global tensor), so that every layout starts equal.
void initial_values(const ParameterEntry& entry, uint64_t seed, int64_t first,
                    std::span<float> out);

}  // namespace qianli::model
