// The border between ops and the kernels of a back end: raw pointers and plain structs, so that
// neither CPU kernels nor .cu files see a torch header, and a plugin library can offer the same
// table.
//
// Shapes are row-major and contiguous unless a stride is given (in elements). "half" below means
// the dtype of the call; statistics, weights' gradients and optimizer state are float32 always.
// Kernels that say "+=" accumulate. All results are deterministic for a given number of threads.
#pragma once

#include <cstdint>

namespace qianli::ops {

enum class Dtype : int { kFloat32 = 0, kBFloat16 = 1 };

// CUDA: a cudaStream_t. CPU: ignored.
using Stream = void*;

// sum = x + residual (when residual is given), y = norm(sum) * w [+ bias], where w is the weight,
// or 1 + weight when zero_centered. Row r takes row r % weight_rows of weight and bias.
struct NormForward {
  Dtype dtype;
  int64_t rows, width;
  int64_t weight_rows = 1;
  bool zero_centered = false;
  double eps;
  const void* x;         // [rows, width]
  const void* residual;  // [rows, width] or null
  const void* weight;    // [weight_rows, width]
  const void* bias;      // [weight_rows, width] or null (layer_norm only)
  void* y;               // [rows, width]
  void* sum;             // [rows, width]; null exactly when residual is null
  float* mean;           // [rows], layer_norm only
  float* rstd;           // [rows]: 1 / sqrt(mean square or variance + eps)
};
struct NormBackward {
  Dtype dtype;
  int64_t rows, width;
  int64_t weight_rows = 1;
  bool zero_centered = false;
  const void* grad_y;    // [rows, width]
  const void* grad_sum;  // [rows, width] or null: gradient that reaches `sum` by the residual path
  const void* sum;       // the normalised input of the forward pass
  const void* weight;    // [weight_rows, width]
  const float* mean;     // [rows], layer_norm only
  const float* rstd;     // [rows]
  void* grad_x;          // [rows, width] = norm' (grad_y) + grad_sum
  float* grad_weight;    // [weight_rows, width] +=, or null when frozen
  float* grad_bias;      // [weight_rows, width] +=, or null
};

// RMSNorm with a gate. gate_first: y = norm(x * silu(gate)) * weight (Mamba-2); otherwise
// y = norm(x) * weight * silu(gate) (gated DeltaNet). Row r takes row r % weight_rows of the
// weight. Rows of the gate come in groups of gate_rows that follow each other; the groups are
// gate_stride elements apart.
struct GatedNormForward {
  Dtype dtype;
  int64_t rows, width;
  int64_t weight_rows = 1;
  bool gate_first;
  double eps;
  const void* x;     // [rows, width]
  const void* gate;  // [rows / gate_rows, gate_rows, width]
  int64_t gate_rows, gate_stride;
  const void* weight;  // [weight_rows, width]
  void* y;             // [rows, width]
  float* rstd;         // [rows]
};
struct GatedNormBackward {
  GatedNormForward forward;  // the same call, with rstd filled
  const void* grad_y;        // [rows, width]
  void* grad_x;              // [rows, width]
  void* grad_gate;           // [rows, width], contiguous
  float* grad_weight;        // [weight_rows, width] +=, or null when frozen
};

// Rotates dimensions [offset, offset + rotary_dim) of each head by pairs: (i, i + rotary_dim/2) or,
// interleaved, (2i, 2i + 1), counted from offset. The rest is copied.
struct Rotary {
  Dtype dtype;
  int64_t tokens, heads, head_dim, rotary_dim;
  int64_t offset = 0;
  bool interleaved = false;
  const void* x;  // [tokens, heads, head_dim], rows `x_stride` and heads `x_head_stride` apart
  int64_t x_stride, x_head_stride;
  void* y;  // [tokens, heads, head_dim], rows `y_stride` apart; may be x where the strides agree
  int64_t y_stride;
  const float* cos;  // [positions, rotary_dim / 2]
  const float* sin;
  const int64_t* positions;  // [tokens]
  bool inverse;              // rotate back: the backward pass
};

// kRelu2: relu(x)^2. kClampedSwiglu, gated only: y = (up + 1) * gate * sigmoid(1.702 gate).
enum class ActivationKind : int { kSilu, kGelu, kGeluTanh, kRelu, kRelu2, kClampedSwiglu };
// Plain: y = act(x). Gated: x is [rows, 2 width], gate = x[:, :width], up = x[:, width:], y =
// act(gate) * up. limit > 0, gated only: up is clamped to [-limit, limit] and act(gate), or for
// kClampedSwiglu the gate itself, from above; what is clamped gets no gradient.
struct ActivationForward {
  Dtype dtype;
  ActivationKind kind;
  bool gated;
  int64_t rows, width;  // width of y
  const void* x;
  void* y;
  double limit = 0.0;
};
struct ActivationBackward {
  Dtype dtype;
  ActivationKind kind;
  bool gated;
  int64_t rows, width;
  const void* x;
  const void* grad_y;
  void* grad_x;  // shape of x
  double limit = 0.0;
};

struct EmbeddingForward {
  Dtype dtype;
  int64_t tokens, width;
  const int64_t* ids;  // [tokens], checked by the caller
  const void* table;   // [vocabulary, width]
  void* y;             // [tokens, width]
};
struct EmbeddingBackward {
  Dtype dtype;
  int64_t tokens, width, vocabulary;
  const int64_t* ids;
  const void* grad_y;
  float* grad_table;  // [vocabulary, width] +=; equal ids are added in token order
};

// One chunk of rows of logits x. With z = multiplier x, or softcap tanh(multiplier x / softcap)
// where softcap > 0: loss[r] = logsumexp(z[r]) - z[r][label[r]]; then, unless `keep_logits`, x[r]
// is overwritten by its gradient weight[r] * (softmax(z[r]) - onehot(label[r])) * dz/dx. Rows with
// weight 0 get loss 0 and gradient 0 (their label is not read).
struct CrossEntropy {
  Dtype dtype;  // of logits
  int64_t rows, vocabulary;
  void* logits;
  const int64_t* labels;
  const float* weights;
  float* losses;  // [rows], unweighted
  bool keep_logits;
  double multiplier = 1.0;  // positive
  double softcap = 0.0;     // 0: none
};

// AdamW on flat float32 ranges (optimizers-and-tools 1.2, the decoupled form):
//   g = grad_scale * grad;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g g
//   p = p (1 - lr wd) - (lr / bias_correction1) * m / (sqrt(v) / sqrt(bias_correction2) + eps)
struct AdamW {
  int64_t count;
  float* parameter;
  const float* grad;
  float* exp_avg;
  float* exp_avg_sq;
  void* bf16_copy;  // [count] bfloat16 of the new parameter, or null
  double lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2, grad_scale;
};

// Sum of squares in double, in a fixed order. result: one double (device memory on CUDA).
struct SquaredNorm {
  int64_t count;
  const float* x;
  double* result;
};

// Which elements of an activation are dropped: a function of where they stand in the undivided
// activation, so that whoever computes a part of it, now or again, drops the same ones. Eight
// neighbours are a group; Philox4x32-10 makes of `key` and the group's counter 128 bits, and the
// i-th 16 of them say of the i-th neighbour that it stays where they are at least `threshold`. What
// stays is multiplied by `scale`.
//
// An origin names a token: its sample's number times 2^32, plus its position in the sample.
inline constexpr int64_t kDropoutGroup = 8;
struct Dropout {
  uint64_t key = 0;
  uint32_t threshold = 0;  // of 65536; 0: nothing is dropped
  double scale = 1.0;      // 65536 / (65536 - threshold)
};
// y = dropout(x); counter of channel c of a row: its origin (64 bits), c / 8, 0.
struct DropoutRows {
  Dtype dtype;
  int64_t rows, width;
  Dropout dropout;
  const int64_t* origins;  // [rows]
  const void* x;           // [rows, width]
  void* y;                 // [rows, width]
};

// Attention over packed sequences. Sequence s owns query rows [q_starts[s], q_starts[s+1]) and key
// rows [k_starts[s], k_starts[s+1]). Query i of a sequence stands at position p = i + offsets[s],
// where the keys are counted from 0; without offsets it is k_len - q_len, so that the last query
// stands at the last key. Causal: it sees keys j <= p, and with window w > 0 only the last w of
// those. Query head h uses key head h / (query_heads / key_heads). Score of a query and a key:
//   z = scale q k;  z = softcap tanh(z / softcap) where softcap > 0;  z += slopes[h] (j - p)
// Softmax in float32; a sink is one more logit in its denominator. A query that sees no key gets 0.
// Dropout is of the softmax; counter of a query and a key: the query's origin (64 bits), the key's
// position in the sample / 8, first_head + h.
inline constexpr int64_t kMostCudaHeadDim = 576;  // of both sizes
struct AttentionForward {
  Dtype dtype;
  int64_t sequences;
  const int64_t* q_starts;  // [sequences + 1]; host memory
  const int64_t* k_starts;  // [sequences + 1]; host memory
  const int64_t* offsets = nullptr;  // [sequences] or null; host memory
  int64_t query_heads, key_heads;
  int64_t head_dim;   // of queries and keys
  int64_t value_dim;  // of values and outputs
  double scale;
  double softcap = 0.0;  // 0: none
  bool causal;
  int64_t window = 0;             // 0: none
  const float* slopes = nullptr;  // [query_heads] or null (ALiBi)
  const float* sinks = nullptr;   // [query_heads] or null
  // [q rows, chosen_count] or null: the keys, counted in their sequence, that a query sees of those
  // above, each once; numbers outside the sequence stand for none. Device memory, like all but the
  // starts.
  const int64_t* chosen = nullptr;
  int64_t chosen_count = 0;
  Dropout dropout = {};
  // With dropout: [sequences], of key 0 of each; host memory. A query at position p has p more.
  const int64_t* origins = nullptr;
  int64_t first_head = 0;  // number of query head 0 in the undivided activation
  const void* q;                                        // [q rows, query_heads, head_dim]
  const void* k;                                        // [k rows, key_heads, head_dim]
  const void* v;                                        // [k rows, key_heads, value_dim]
  int64_t q_stride, k_stride, v_stride;                 // from row to row
  int64_t q_head_stride, k_head_stride, v_head_stride;  // from head to head
  void* out;   // [q rows, query_heads, value_dim], contiguous
  float* lse;  // [query_heads, q rows] natural logarithm of the softmax sum, or null (inference)
};
struct AttentionBackward {
  AttentionForward forward;  // the same call, with out and lse filled
  const void* grad_out;      // contiguous like out
  void* grad_q;              // heads follow each other, rows as given
  void* grad_k;
  void* grad_v;
  int64_t grad_q_stride, grad_k_stride, grad_v_stride;
  float* grad_sinks = nullptr;  // [query_heads] +=, or null
};

// y = x W^T + b for 1 to kFewRows rows: bound by reading the weight, not by arithmetic. Sums in
// float32.
inline constexpr int64_t kFewRows = 16;
struct LinearFewRows {
  Dtype dtype;
  int64_t rows, in, out;
  const void* x;       // [rows, in]
  const void* weight;  // [out, in]
  const void* bias;    // [out] or null
  void* y;             // [rows, out]
};

// Products of rows with the matrix of their group (the expert they are sent to). Rows are sorted by
// group: group g owns counts[g] of them. Groups without rows cost nothing. Sums in float32.
struct Groups {
  Dtype dtype;
  int64_t groups;
  const int64_t* counts;  // [groups]; host memory
  int64_t in, out;
};
struct GroupedLinearForward {
  Groups shape;
  const void* x;       // [rows, in]
  const void* weight;  // [groups, out, in]
  const void* bias;    // [groups, out] or null
  void* y;             // [rows, out] = x W_g^T + b_g
};
struct GroupedLinearBackwardInput {
  Groups shape;
  const void* grad_y;  // [rows, out]
  const void* weight;  // [groups, out, in]
  void* grad_x;        // [rows, in] = grad_y W_g
};
struct GroupedLinearBackwardWeight {
  Groups shape;
  const void* grad_y;  // [rows, out]
  const void* x;       // [rows, in]
  float* grad_weight;  // [groups, out, in] (+)= grad_y^T x of the group's rows, or null when frozen
  bool accumulate;     // grad_weight: add, else overwrite (with zeros where a group has no rows)
  float* grad_bias;    // [groups, out] += sums of the group's rows, or null
};

// Rows of tokens on their way to experts and back. A token has `slots` choices; rows[t, s] is the row
// of choice s, -1 where it was dropped.
struct GatherRows {
  Dtype dtype;
  int64_t rows, width;
  const int64_t* tokens;  // [rows]: the token of each row
  const void* x;          // [tokens, width]
  void* y;                // [rows, width]
};
// y[t] = sum over s of weights[t, s] x[rows[t, s]], in float32.
struct CombineRows {
  Dtype dtype;
  int64_t tokens, slots, width;
  const int64_t* rows;   // [tokens, slots]
  const float* weights;  // [tokens, slots], or null: all 1
  const void* x;         // [rows, width]
  void* y;               // [tokens, width]
};
// grad_x[rows[t, s]] = weights[t, s] grad_y[t];  grad_weights[t, s] = <grad_y[t], x[rows[t, s]]>, 0
// where the choice was dropped. Rows of no choice are left alone.
struct CombineRowsBackward {
  CombineRows forward;  // the same call; weights are given, y is not used
  const void* grad_y;   // [tokens, width]
  void* grad_x;         // [rows, width]
  float* grad_weights;  // [tokens, slots]
};

// Depthwise causal convolution over packed sequences. Sequence s owns the rows
// [starts[s], starts[s+1]); rows before it are those of `tail`, or zero.
//   y[t, c] = act(bias[c] + sum_j weight[c, j] x[t - kernel + 1 + j, c])
struct CausalConvForward {
  Dtype dtype;
  int64_t sequences;
  const int64_t* starts;  // [sequences + 1]; host memory
  int64_t channels, kernel;
  bool silu;
  const void* x;  // [rows, channels], rows x_stride apart
  int64_t x_stride;
  const void* tail;    // [kernel - 1, channels] or null; with one sequence only
  const void* weight;  // [channels, kernel]
  const void* bias;    // [channels] or null
  void* y;             // [rows, channels], contiguous
};
struct CausalConvBackward {
  CausalConvForward forward;  // the same call without tail; y is not read
  const void* grad_y;         // [rows, channels], contiguous
  void* grad_x;               // the same
  float* grad_weight;         // [channels, kernel] +=, or null when frozen
  float* grad_bias;           // [channels] +=, or null
};

// The gated delta rule (Yang et al., arXiv:2412.06464) over packed sequences, one state
// [key_dim, value_dim] per value head; value head h uses key head h / (value_heads / key_heads).
//   k = normed(k), q = scale normed(q), normed(x) = x / sqrt(sum(x^2) + norm_eps)
//   c_t = v_t - exp(g_t) S^T k_t     S = exp(g_t) S + k_t (x) beta_t c_t     out_t = S^T q_t
struct DeltaRuleForward {
  Dtype dtype;  // of q, k, v and out; everything else is float32
  int64_t sequences;
  const int64_t* starts;  // [sequences + 1]; host memory
  int64_t key_heads, value_heads, key_dim, value_dim;
  double scale, norm_eps;
  const void *q, *k;  // [rows, key_heads, key_dim], rows q_stride and k_stride apart
  const void* v;      // [rows, value_heads, value_dim], rows v_stride apart
  int64_t q_stride, k_stride, v_stride;
  const float* g;              // [rows, value_heads], at most 0
  const float* beta;           // [rows, value_heads]
  const float* initial_state;  // [sequences, value_heads, key_dim, value_dim] or null: zero
  float* final_state;          // the same or null; may be initial_state
  void* out;                   // [rows, value_heads, value_dim], contiguous
  float* correction;           // c, shape of out, or null (inference)
};
struct DeltaRuleBackward {
  DeltaRuleForward forward;       // the same call with correction filled; out is not read
  const void* grad_out;           // contiguous like out
  const float* grad_final_state;  // or null: zero
  void *grad_q, *grad_k, *grad_v;  // contiguous
  float *grad_g, *grad_beta;       // [rows, value_heads]
  float* grad_initial_state;       // or null
};

// The state-space recurrence of Mamba-2 (Dao and Gu, arXiv:2405.21060) over packed sequences, one
// state [state_size, head_dim] per head; head h uses the b and c of group h / (heads / groups).
//   S = exp(dt_t a) S + b_t (x) dt_t x_t     out_t = S^T c_t + skip x_t
struct StateSpaceForward {
  Dtype dtype;  // of x, b, c and out; everything else is float32
  int64_t sequences;
  const int64_t* starts;  // [sequences + 1]; host memory
  int64_t heads, groups, head_dim, state_size;
  const void* x;       // [rows, heads, head_dim], rows x_stride apart
  const void *b, *c;   // [rows, groups, state_size], rows b_stride and c_stride apart
  int64_t x_stride, b_stride, c_stride;
  const float* dt;             // [rows, heads], not negative
  const float* a;              // [heads], negative
  const float* skip;           // [heads]
  const float* initial_state;  // [sequences, heads, state_size, head_dim] or null: zero
  float* final_state;          // the same or null; may be initial_state
  void* out;                   // [rows, heads, head_dim], contiguous
};
struct StateSpaceBackward {
  StateSpaceForward forward;      // the same call; out is not read
  const void* grad_out;           // contiguous like out
  const float* grad_final_state;  // or null: zero
  void *grad_x, *grad_b, *grad_c;  // contiguous
  // [rows, heads]: gradient of dt without the way over exp(dt a), of the exponent dt a, of skip
  float *grad_dt, *grad_decay, *grad_skip;
  float* grad_initial_state;  // or null
};

// What a back end offers; a null entry means the op falls to the next back end.
struct KernelTable {
  const char* name;
  void (*rms_norm_forward)(const NormForward&, Stream);
  void (*rms_norm_backward)(const NormBackward&, Stream);
  void (*layer_norm_forward)(const NormForward&, Stream);
  void (*layer_norm_backward)(const NormBackward&, Stream);
  void (*gated_norm_forward)(const GatedNormForward&, Stream);
  void (*gated_norm_backward)(const GatedNormBackward&, Stream);
  void (*rotary)(const Rotary&, Stream);
  void (*activation_forward)(const ActivationForward&, Stream);
  void (*activation_backward)(const ActivationBackward&, Stream);
  void (*embedding_forward)(const EmbeddingForward&, Stream);
  void (*embedding_backward)(const EmbeddingBackward&, Stream);
  void (*cross_entropy)(const CrossEntropy&, Stream);
  void (*adamw)(const AdamW&, Stream);
  void (*squared_norm)(const SquaredNorm&, Stream);
  void (*attention_forward)(const AttentionForward&, Stream);
  void (*attention_backward)(const AttentionBackward&, Stream);
  void (*linear_few_rows)(const LinearFewRows&, Stream);
  void (*grouped_linear_forward)(const GroupedLinearForward&, Stream);
  void (*grouped_linear_backward_input)(const GroupedLinearBackwardInput&, Stream);
  void (*grouped_linear_backward_weight)(const GroupedLinearBackwardWeight&, Stream);
  void (*gather_rows)(const GatherRows&, Stream);
  void (*combine_rows)(const CombineRows&, Stream);
  void (*combine_rows_backward)(const CombineRowsBackward&, Stream);
  void (*causal_conv_forward)(const CausalConvForward&, Stream);
  void (*causal_conv_backward)(const CausalConvBackward&, Stream);
  void (*delta_rule_forward)(const DeltaRuleForward&, Stream);
  void (*delta_rule_backward)(const DeltaRuleBackward&, Stream);
  void (*state_space_forward)(const StateSpaceForward&, Stream);
  void (*state_space_backward)(const StateSpaceBackward&, Stream);
  void (*dropout)(const DropoutRows&, Stream);
};

// The Highway kernels, compiled for several instruction sets and chosen at run time.
const KernelTable& cpu_kernels();

}  // namespace qianli::ops
