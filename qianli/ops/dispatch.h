// Which back end serves which op: the table (op, device, dtype) -> implementation.
//
//   reference  composed of ATen calls, any device and dtype; its gradient is autograd's
//   native     our CPU kernels (Highway), float32 and bfloat16
//   cuda       our CUDA kernels, from the plugin library
//   torch      LibTorch's own fused kernel (GEMM everywhere, attention on CUDA), or batches of its
//              matrix products (the recurrent ops in chunks, any device and type)
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "qianli/ops/kernels.h"

namespace qianli::ops {

enum class Op {
  kEmbedding,
  kLinear,
  kLinearFewRows,  // linear without gradient on at most kFewRows rows: decoding
  kGroupedLinear,  // each group of rows with its own matrix: experts
  kPermute,        // rows of tokens to experts and back
  kRmsNorm,
  kLayerNorm,
  kGatedRmsNorm,
  kRotary,
  kActivation,
  kAttention,
  kCrossEntropy,
  kAdamW,
  kSquaredNorm,
  kCausalConv1d,
  kGatedDeltaRule,
  kStateSpace,
  kDropout
};
inline constexpr std::array<const char*, 18> kOpNames = {
    "embedding",        "linear",        "linear_few_rows", "grouped_linear", "permute",
    "rms_norm",         "layer_norm",    "gated_rms_norm",  "rotary",         "activation",
    "attention",        "cross_entropy", "adamw",           "squared_norm",   "causal_conv1d",
    "gated_delta_rule", "state_space",   "dropout"};

// Applies the configuration's `ops` section; throws ConfigError for an unknown op or back end.
void choose_backends(const std::map<std::string, std::string>& choices);
// Takes the kernels of the CUDA library, where one is available. Call before the first tensor work.
void load_cuda_kernels();

// The kernel table that serves `op` on tensors like x, or null for the reference.
const KernelTable* kernels_for(Op op, const at::Tensor& x);
// The same where LibTorch's kernel comes first: for calls that it does not know. Null for float64
// and where the reference was asked for.
const KernelTable* kernels_beside_torch(Op op, const at::Tensor& x);
// True when LibTorch's fused kernel is to be used for `op`.
bool use_torch(Op op, const at::Tensor& x);

Dtype kernel_dtype(const at::Tensor& x);
// The current CUDA stream of x's device, null on CPU.
Stream stream_of(const at::Tensor& x);

// For `qianli backends`: one row per op, device and dtype.
struct BackendRow {
  std::string op, device, dtype, implementation;
};
std::vector<BackendRow> backend_rows();

}  // namespace qianli::ops
