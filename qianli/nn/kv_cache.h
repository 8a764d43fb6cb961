// What the tokens already seen leave for those behind them, per layer, of many sequences: rows of
// keys and values, or of latents, in blocks; recurrent states and compressed keys in slots. Which
// sequence has which blocks is the caller's affair, so sequences may share them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "qianli/model/spec.h"
#include "qianli/nn/compressed_state.h"
#include "qianli/nn/recurrent_state.h"
#include "qianli/ops/paged_attention.h"

namespace qianli::nn {

// A sequence's place in a cache.
struct CachedSequence {
  // Block i holds its rows [i size, (i + 1) size); ops::kNoBlock where no later token sees them.
  std::vector<int64_t> blocks;
  int64_t slot = 0;    // of recurrent states and compressed keys
  int64_t length = 0;  // rows so far
};

struct CacheSizes {
  int64_t blocks, block_size, slots;
  int64_t ahead_layers = 0;  // of multi-token prediction, behind the model's own
};

class KvCache {
 public:
  // Layers get room for what their mixer keeps: keys and values, latents, or a recurrent state.
  // Compressed keys make room as they come.
  KvCache(const model::ModelSpec& spec, const CacheSizes& sizes, at::ScalarType dtype,
          at::Device device);
  // For one sequence of at most `capacity` tokens, in one block, which every pass continues.
  KvCache(const model::ModelSpec& spec, int64_t capacity, at::ScalarType dtype, at::Device device);

  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Numbers that a token leaves in all layers together.
  static int64_t elements_per_token(const model::ModelSpec& spec, int64_t ahead_layers = 0);
  // Bytes that all layers of one sequence need besides, however many tokens there are.
  static int64_t fixed_bytes(const model::ModelSpec& spec, at::ScalarType dtype);

  const CacheSizes& sizes() const { return sizes_; }
  // The sequences that the segments of the next pass continue, in order. They have blocks for the
  // new rows, and live until the pass is over.
  void begin(std::vector<CachedSequence*> sequences);
  // Of the pass's segments: rows that their sequence had before.
  int64_t length(size_t segment = 0) const { return sequences_[segment]->length; }
  // After all layers took the rows of these segments.
  void advance(const std::vector<int64_t>& segment_starts);

  // The stores put the rows of all segments behind those that their sequences have.
  // k, v: [T, key heads, D].
  void store(int64_t layer, const at::Tensor& k, const at::Tensor& v,
             const std::vector<int64_t>& segment_starts);
  // Of latent attention: [T, kv_lora_rank + qk_rope_head_dim].
  void store_latents(int64_t layer, const at::Tensor& latents,
                     const std::vector<int64_t>& segment_starts);
  // Of an indexer: [T, its head size].
  void store_index_keys(int64_t layer, const at::Tensor& keys,
                        const std::vector<int64_t>& segment_starts);

  // Attention of the first segments, whose queries q are [Tq, heads, D] by layout.q_starts, to all
  // rows of their sequences, those just stored included. Of `layout` the switches count.
  at::Tensor attend(int64_t layer, const at::Tensor& q, const ops::AttentionLayout& layout,
                    ops::Parameter* sinks) const;
  // The same to latents as the keys of one head, whose first `rank` numbers are the values.
  at::Tensor attend_latents(int64_t layer, const at::Tensor& q, int64_t rank,
                            const ops::AttentionLayout& layout) const;
  // [length + added, its head size], of one segment.
  at::Tensor index_keys(int64_t layer, size_t segment, int64_t added) const;

  // Of a layer with a recurrent mixer: the states of all slots, and the slots of the segments.
  RecurrentStates& recurrent(int64_t layer) {
    return layers_[static_cast<size_t>(layer)].recurrent;
  }
  std::vector<int64_t> slots() const;
  // Of a layer of compressed attention: the states of the pass's segments, which the layer brings
  // up to date.
  std::vector<CompressedState*> compressed(int64_t layer,
                                           const std::vector<int64_t>& segment_starts);
  // Back to before the first token.
  void reset_slot(int64_t slot);
  void copy_slot(int64_t from, int64_t to);
  // All layers' rows of one block.
  void copy_block(int64_t from, int64_t to);

  // Of a cache for one sequence.
  int64_t capacity() const { return sizes_.block_size; }
  void advance(int64_t count) { sequences_[0]->length += count; }
  // Forgets everything behind the first `length` tokens and returns how many are left. A recurrent
  // state and compressed keys cannot go back: with them, nothing is left unless nothing had to be
  // forgotten.
  int64_t truncate(int64_t length);

 private:
  struct Layer {
    at::Tensor keys, values;         // [blocks, key heads, block size, D]
    at::Tensor latents, index_keys;  // [blocks, 1, block size, …]; undefined what is not kept
    RecurrentStates recurrent;
    CompressedStates compressed;
  };
  // Throws MemoryError where a segment is longer than the blocks of its sequence have room for.
  void check_room(size_t segment, int64_t added) const;
  // Where the rows of a pass go.
  struct Places {
    bool consecutive = false;  // in one block, from `offset` on
    int64_t block = 0, offset = 0;
    at::Tensor blocks, offsets;  // else: of each row
  };
  Places places(const std::vector<int64_t>& segment_starts) const;
  static void put(const at::Tensor& pool, const at::Tensor& rows, const Places& places);
  std::vector<ops::BlockTable> tables(const std::vector<int64_t>& q_starts) const;
  // Without its last rows.
  ops::BlockTable shorter(const ops::BlockTable& table, int64_t rows) const;
  at::Tensor attend_to(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const ops::AttentionLayout& layout, ops::Parameter* sinks) const;

  CacheSizes sizes_;
  at::Device device_;
  std::vector<Layer> layers_;
  CachedSequence own_;
  std::vector<CachedSequence*> sequences_;
};

}  // namespace qianli::nn
