// Every parameter of a model, from its ModelSpec. Initialisation, sharding, checkpointing,
// conversion and the documents all read this one table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::model {

enum class Init { kZeros, kOnes, kNormal, kNormalScaledByDepth };
// How an axis is cut over a group; kNone: replicated.
enum class Cut { kNone, kTensor };

// Where the rows [first_row, first_row + rows) of a parameter live in a Hugging Face folder.
// A fused parameter (linear_qkv, linear_fc1 of a gated MLP) has several sources.
struct ForeignPiece {
  std::string name;
  int64_t first_row = 0;  // in our parameter
  int64_t rows = 0;
  int64_t foreign_row = 0;  // first row in the foreign tensor, after transposing
  bool transposed = false;  // foreign is [in, out] (GPT-2's Conv1D)
};

struct ParameterEntry {
  std::string name;            // Megatron-core's: decoder.layers.0.self_attention.linear_qkv.weight
  std::vector<int64_t> shape;  // global, not padded
  Init init = Init::kNormal;
  double init_std = 0.0;  // for the normal initialisers, already scaled
  Cut cut = Cut::kNone;
  int cut_axis = 0;
  int64_t layer = -1;         // decoder layer, -1 outside the layers
  bool weight_decay = false;  // matrices yes, vectors no
  std::vector<ForeignPiece> hugging_face;

  int64_t elements() const;
};

// In the order of the forward pass: embeddings, layers, final norm, output layer (absent when
// tied). {weight,bias}: the bias where the spec has it, of the first axis' size.
//
//   embedding.word_embeddings.weight                                  [V, h]
//   embedding.position_embeddings.weight                              [P, h]   learned positions
//   decoder.layers.{l}.input_layernorm.{weight,bias}                  [h]
//   decoder.layers.{l}.self_attention.linear_qkv.{weight,bias}        [(a + 2 g) d, h]
//   decoder.layers.{l}.self_attention.{q,k}_layernorm.weight          [d]      qk_norm
//   decoder.layers.{l}.self_attention.linear_proj.{weight,bias}       [h, a d]
//   decoder.layers.{l}.pre_mlp_layernorm.{weight,bias}                [h]
//   decoder.layers.{l}.mlp.linear_fc1.{weight,bias}                   [2 f, h] gate, then up; or
//   [f, h] decoder.layers.{l}.mlp.linear_fc2.{weight,bias}                   [h, f]
//   decoder.final_layernorm.{weight,bias}                             [h]
//   output_layer.weight                                               [V, h]
//
// linear_qkv rows are all query rows, then all key rows, then all value rows. (Megatron interleaves
// them by query group; that order only matters when cutting, and is a transform of the name maps.)
std::vector<ParameterEntry> parameter_table(const ModelSpec& spec);

int64_t parameter_count(const ModelSpec& spec);

// A prefix of the names in ForeignPiece that some folders leave out ("transformer.", "model."): a
// reader that misses a name tries it without this prefix.
std::string optional_foreign_prefix(const ModelSpec& spec);

// Values [first, first + out.size()) of a parameter at the start of training: a pure function of
// (seed, name, index in the global tensor), so that every layout starts equal.
void initial_values(const ParameterEntry& entry, uint64_t seed, int64_t first,
                    std::span<float> out);

}  // namespace qianli::model
