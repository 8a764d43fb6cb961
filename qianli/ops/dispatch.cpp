#include "qianli/ops/dispatch.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/device/device.h"

namespace qianli::ops {
namespace {

enum class Choice { kAutomatic, kReference, kNative, kCuda, kTorch };

struct State {
  std::array<Choice, kOpNames.size()> choices{};
  const KernelTable* cuda = nullptr;
  Stream (*current_stream)(int) = nullptr;
};

State& state() {
  static State instance;
  return instance;
}

bool has_kernel(const KernelTable& table, Op op) {
  switch (op) {
    case Op::kEmbedding:
      return table.embedding_forward && table.embedding_backward;
    case Op::kRmsNorm:
      return table.rms_norm_forward && table.rms_norm_backward;
    case Op::kLayerNorm:
      return table.layer_norm_forward && table.layer_norm_backward;
    case Op::kGatedRmsNorm:
      return table.gated_norm_forward && table.gated_norm_backward;
    case Op::kRotary:
      return table.rotary;
    case Op::kActivation:
      return table.activation_forward && table.activation_backward;
    case Op::kAttention:
      return table.attention_forward && table.attention_backward;
    case Op::kCrossEntropy:
      return table.cross_entropy;
    case Op::kAdamW:
      return table.adamw;
    case Op::kSquaredNorm:
      return table.squared_norm;
    case Op::kLinearFewRows:
      return table.linear_few_rows;
    case Op::kGroupedLinear:
      return table.grouped_linear_forward && table.grouped_linear_backward_input &&
             table.grouped_linear_backward_weight;
    case Op::kPermute:
      return table.gather_rows && table.combine_rows && table.combine_rows_backward;
    case Op::kCausalConv1d:
      return table.causal_conv_forward && table.causal_conv_backward;
    case Op::kGatedDeltaRule:
      return table.delta_rule_forward && table.delta_rule_backward;
    case Op::kStateSpace:
      return table.state_space_forward && table.state_space_backward;
    case Op::kDropout:
      return table.dropout;
    case Op::kLinear:
      return false;
  }
  return false;
}

enum class Implementation { kReference, kKernel, kTorch };

// Null: there are no kernels of ours for it.
const KernelTable* table_of(at::DeviceType device) {
  if (device == at::kCPU) return &cpu_kernels();
  return device == at::kCUDA ? state().cuda : nullptr;
}

// The table of the device, if it has a kernel for the op and dtype.
const KernelTable* table_with(Op op, at::DeviceType device, at::ScalarType dtype) {
  const KernelTable* table = table_of(device);
  const bool kernel_dtype = dtype == at::kFloat || dtype == at::kBFloat16;
  return table && kernel_dtype && has_kernel(*table, op) ? table : nullptr;
}

Implementation implementation_of(Op op, at::DeviceType device, at::ScalarType dtype) {
  const bool cuda = device == at::kCUDA;
  const Choice choice = state().choices[static_cast<size_t>(op)];
  if (choice == Choice::kReference) return Implementation::kReference;
  const bool torch_serves = op == Op::kLinear || op == Op::kLinearFewRows ||
                            op == Op::kGroupedLinear || op == Op::kGatedDeltaRule ||
                            op == Op::kStateSpace || (op == Op::kAttention && dtype != at::kDouble);
  // Tensor cores: our own attention on CUDA is for what LibTorch's does not know.
  const bool torch_first = cuda && op == Op::kAttention && torch_serves;
  const bool kernel_wanted = (choice == Choice::kAutomatic && !torch_first) ||
                             (cuda ? choice == Choice::kCuda : choice == Choice::kNative);
  if (kernel_wanted && table_with(op, device, dtype)) return Implementation::kKernel;
  if (torch_serves && choice != Choice::kReference) return Implementation::kTorch;
  return Implementation::kReference;
}

}  // namespace

void choose_backends(const std::map<std::string, std::string>& choices) {
  const std::vector<std::string> ops(kOpNames.begin(), kOpNames.end());
  const std::vector<std::string> backends{"auto", "reference", "native", "cuda", "torch"};
  state().choices.fill(Choice::kAutomatic);
  for (const auto& [op, backend] : choices) {
    const auto op_place = std::find(ops.begin(), ops.end(), op);
    if (op_place == ops.end()) {
      throw ConfigError("ops",
                        fmt::format("expected an op name, got '{}'{}", op, suggestion(op, ops)),
                        "`qianli backends` lists them");
    }
    const auto backend_place = std::find(backends.begin(), backends.end(), backend);
    if (backend_place == backends.end()) {
      throw ConfigError("ops",
                        fmt::format("expected a back end for {}, got '{}'{}", op, backend,
                                    suggestion(backend, backends)),
                        "`qianli backends` lists them");
    }
    state().choices[op_place - ops.begin()] = static_cast<Choice>(backend_place - backends.begin());
  }
}

void load_cuda_kernels() {
  const device::CudaLibrary& library = device::CudaLibrary::get();
  if (!library.available()) return;
  using Table = const KernelTable* (*)();
  if (const auto table = reinterpret_cast<Table>(library.symbol("qianli_cuda_kernels")))
    state().cuda = table();
  state().current_stream =
      reinterpret_cast<Stream (*)(int)>(library.symbol("qianli_cuda_current_stream"));
}

const KernelTable* kernels_for(Op op, const at::Tensor& x) {
  if (implementation_of(op, x.device().type(), x.scalar_type()) != Implementation::kKernel)
    return nullptr;
  return table_of(x.device().type());
}

const KernelTable* kernels_beside_torch(Op op, const at::Tensor& x) {
  return use_torch(op, x) ? table_with(op, x.device().type(), x.scalar_type()) : nullptr;
}

bool use_torch(Op op, const at::Tensor& x) {
  return implementation_of(op, x.device().type(), x.scalar_type()) == Implementation::kTorch;
}

Dtype kernel_dtype(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? Dtype::kBFloat16 : Dtype::kFloat32;
}

Stream stream_of(const at::Tensor& x) {
  return x.is_cuda() && state().current_stream ? state().current_stream(x.device().index())
                                               : nullptr;
}

std::vector<BackendRow> backend_rows() {
  std::vector<BackendRow> rows;
  for (const bool cuda : {false, true}) {
    if (cuda && !state().cuda) continue;
    for (size_t op = 0; op < kOpNames.size(); ++op) {
      for (const auto& [dtype, name] :
           {std::pair{at::kFloat, "fp32"}, {at::kBFloat16, "bf16"}, {at::kDouble, "fp64"}}) {
        const auto found =
            implementation_of(static_cast<Op>(op), cuda ? at::kCUDA : at::kCPU, dtype);
        const char* kernel = cuda ? "cuda" : "native";
        rows.push_back({kOpNames[op], cuda ? "cuda" : "cpu", name,
                        found == Implementation::kKernel  ? kernel
                        : found == Implementation::kTorch ? "torch"
                                                          : "reference"});
      }
    }
  }
  return rows;
}

}  // namespace qianli::ops
