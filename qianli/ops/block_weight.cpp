#include "qianli/ops/block_weight.h"

#include <ATen/OpaqueTensorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "qianli/base/threads.h"
#include "qianli/formats/ggml_blocks.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/gemm.h"
#include "qianli/ops/linear.h"

namespace qianli::ops {
namespace {

using Handle = std::shared_ptr<const BlockWeight>;
using BlockTensor = at::OpaqueTensorImpl<Handle>;
// No back end of LibTorch has it: an op that is not ours finds no kernel.
constexpr auto kKey = c10::DispatchKey::PrivateUse3;

formats::GgmlType type_of(cpu::BlockCode code) {
  return code == cpu::BlockCode::kQ4_0 ? formats::GgmlType::kQ4_0 : formats::GgmlType::kQ8_0;
}

// A row in GGML's blocks, and its numbers with zeros up to a whole block.
struct Row {
  std::vector<std::byte> blocks;
  std::vector<float> values;

  Row(int64_t columns, cpu::BlockCode code) {
    const auto traits = *formats::ggml_traits(static_cast<uint32_t>(type_of(code)));
    const size_t count = (static_cast<size_t>(columns) + traits.block_size - 1) / traits.block_size;
    blocks.resize(count * traits.block_bytes);
    values.resize(count * traits.block_size);
  }
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(blocks.data()); }
};

}  // namespace

BlockWeight::BlockWeight(const at::Tensor& values, cpu::BlockCode code)
    : shape_(values.sizes().vec()),
      code_(code),
      groups_(values.dim() == 3 ? values.size(0) : 1),
      out_(values.size(-2)),
      in_(values.size(-1)) {
  TORCH_CHECK(values.is_cpu() && values.scalar_type() == at::kFloat && values.is_contiguous() &&
                  (values.dim() == 2 || values.dim() == 3),
              "[ops] expected a weight in float32 on the CPU, got ", values.toString(), " of ",
              values.sizes());
  const size_t bytes = cpu::block_matrix_bytes(code, out_, in_);
  data_ = at::zeros({groups_ * static_cast<int64_t>(bytes)}, at::kByte);
  const float* from = values.data_ptr<float>();
  const int64_t tiles = (out_ + cpu::kTileRows - 1) / cpu::kTileRows;
  parallel_for(groups_ * tiles, available_cores(), [&](int64_t tile) {
    const int64_t group = tile / tiles, first = tile % tiles * cpu::kTileRows;
    Row row(in_, code_);
    for (int64_t r = first; r < std::min(first + cpu::kTileRows, out_); ++r) {
      std::copy_n(from + (group * out_ + r) * in_, in_, row.values.begin());
      if (code_ == cpu::BlockCode::kQ4_0) {
        formats::quantize_q4_0(row.values, row.blocks);
      } else {
        formats::quantize_q8_0(row.values, row.blocks);
      }
      cpu::pack_row(matrix(group), r, row.bytes());
    }
  });
}

cpu::BlockMatrix BlockWeight::matrix(int64_t group) const {
  const auto bytes = static_cast<int64_t>(cpu::block_matrix_bytes(code_, out_, in_));
  return {code_, out_, in_, data_.data_ptr<uint8_t>() + group * bytes};
}

at::Tensor BlockWeight::linear(const at::Tensor& x, const at::Tensor& bias, int64_t group) const {
  if (!x.is_cpu() || (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16)) {
    at::Tensor weight = numbers(x.scalar_type()).to(x.device());
    if (groups_ > 1) weight = weight[group];
    return reference::linear(x, weight, bias);
  }
  const at::Tensor rows = x.contiguous();
  at::Tensor y = at::empty({x.size(0), out_}, x.options());
  cpu::block_linear({.dtype = kernel_dtype(x),
                     .rows = x.size(0),
                     .x = rows.data_ptr(),
                     .weight = matrix(group),
                     .bias = bias.defined() ? bias.data_ptr() : nullptr,
                     .y = y.data_ptr()});
  return y;
}

void BlockWeight::read_row(int64_t group, int64_t row, float* values) const {
  Row blocks(in_, code_);
  cpu::unpack_row(matrix(group), row, blocks.bytes());
  formats::dequantize(type_of(code_), blocks.blocks, blocks.values);
  std::copy_n(blocks.values.begin(), in_, values);
}

at::Tensor BlockWeight::rows(const at::Tensor& ids, at::ScalarType dtype) const {
  at::Tensor found = at::empty({ids.size(0), in_}, at::kFloat);
  const int64_t* id = ids.data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.size(0); ++i) read_row(0, id[i], found.data_ptr<float>() + i * in_);
  return found.to(dtype);
}

at::Tensor BlockWeight::numbers(at::ScalarType dtype) const {
  at::Tensor all = at::empty(shape_, at::kFloat);
  float* values = all.data_ptr<float>();
  parallel_for(groups_ * out_, available_cores(),
               [&](int64_t row) { read_row(row / out_, row % out_, values + row * in_); });
  return all.to(dtype);
}

at::Tensor as_value(std::shared_ptr<const BlockWeight> weight, at::IntArrayRef shape,
                    at::ScalarType dtype) {
  return at::detail::make_tensor<BlockTensor>(c10::DispatchKeySet(kKey),
                                              c10::scalarTypeToTypeMeta(dtype), at::kCPU,
                                              std::move(weight), shape);
}

const BlockWeight* block_weight(const at::Tensor& value) {
  if (!value.key_set().has(kKey)) return nullptr;
  return static_cast<const BlockTensor*>(value.unsafeGetTensorImpl())->opaque_handle().get();
}

at::Tensor product_nt(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (const BlockWeight* blocks = block_weight(weight)) return blocks->linear(x, bias);
  return gemm_nt(x, weight, bias);
}

}  // namespace qianli::ops
