// What llama.cpp calls the models that this program knows, and how it lays them out. A row of data
// per architecture; names and layouts are those of llama.cpp's convert_hf_to_gguf.py and gguf-py's
// tensor tables (github.com/ggml-org/llama.cpp).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/model/spec.h"

namespace qianli::convert {

struct GgufArchitecture {
  std::string_view name;  // general.architecture
  // Families of this program that it holds.
  std::vector<std::string_view> families;
  // Rows of queries and keys lie in pairs (2i, 2i + 1), as GGML's plain rotation wants them, where
  // the family rotates (i, i + d/2).
  bool paired_rows = false;
  bool fused_qkv = false;       // attn_qkv: all queries, all keys, all values
  bool fused_gate = false;      // ffn_up: gate, then up
  bool split_latent = false;    // attn_k_b (transposed) and attn_v_b instead of attn_kv_b
  bool norms_plus_one = false;  // weights of norms are stored as they multiply, the family's plus 1
  bool output_norm_of_layers = false;  // of a head further ahead: layer_output_norm
  // Keeps the layers of multi-token prediction, behind the others.
  bool heads_ahead = false;
  std::string_view mlp_norm = "ffn_norm";
  std::string_view post_attention_norm = "post_attention_norm";
  std::string_view post_mlp_norm = "post_ffw_norm";
  // Of layers with a window: every so many sees everything, the others have the window; 0: all have
  // it. Absent: the architecture has no windows.
  std::optional<int64_t> window_period = {};
  int64_t feed_forward_factor = 1;  // of feed_forward_length over the width of one branch
  // Heads, windows and limits stand in lists with a value for each layer (layer_lists.h).
  bool lists_per_layer = false;

  bool has_windows() const { return window_period || lists_per_layer; }
};

// All of them. One that is laid out in two ways stands here twice.
std::span<const GgufArchitecture> gguf_architectures();

// The architecture that holds the family of `spec`; throws ConfigError saying that none does.
const GgufArchitecture& gguf_architecture_of(const model::ModelSpec& spec);

// What a model is as far as GGUF's own keys can tell: of the same mathematics, told in the way that
// they have. Heads further ahead, where the architecture has no place for them, are left out.
model::ModelSpec as_gguf_tells(const model::ModelSpec& spec, const GgufArchitecture& architecture);

}  // namespace qianli::convert
