#include "qianli/ops/quantized_weight.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/bitwise_or.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace qianli::ops {
namespace {

constexpr int64_t kBlock = 64;         // values of a magnitude
constexpr int64_t kNestedBlock = 256;  // magnitudes of a nested one
constexpr double kSmallest = 1e-38;
constexpr double kInt8Step = 7.874015718698502e-3;  // 1 / 127 as bitsandbytes has it

at::Tensor table_of(const std::vector<float>& numbers, at::Device device) {
  return at::tensor(numbers, at::TensorOptions().dtype(at::kFloat)).to(device);
}

// Values in blocks of the same size, and what is left behind them.
struct Blocks {
  at::Tensor whole, rest;  // [blocks, size]; [rest]

  Blocks(const at::Tensor& values, int64_t size) {
    const int64_t blocks = values.numel() / size;
    whole = values.narrow(0, 0, blocks * size).view({blocks, size});
    rest = values.narrow(0, blocks * size, values.numel() - blocks * size);
  }
};

at::Tensor largest_magnitudes(const at::Tensor& values, int64_t size) {
  const Blocks blocks(values, size);
  std::vector<at::Tensor> largest{blocks.whole.abs().amax(1)};
  if (blocks.rest.numel() > 0)
    largest.push_back(blocks.rest.abs().max().clamp_min(kSmallest).view({1}));
  return at::cat(largest);
}

// The number of the nearest of `numbers` to each value over its block's magnitude: the lower one
// where it lies between two.
at::Tensor nearest(const at::Tensor& values, const at::Tensor& magnitudes, int64_t size,
                   const std::vector<float>& numbers) {
  const Blocks blocks(values, size);
  const int64_t whole = blocks.whole.size(0);
  const at::Tensor inverse = magnitudes.narrow(0, 0, whole).clamp_min(kSmallest).reciprocal();
  std::vector<at::Tensor> scaled{(blocks.whole * inverse.unsqueeze(1)).view(-1)};
  if (blocks.rest.numel() > 0) scaled.push_back(blocks.rest / magnitudes[whole]);
  const at::Tensor table = table_of(numbers, values.device());
  const int64_t last = table.numel() - 1;
  const at::Tensor borders = (table.narrow(0, 0, last) + table.narrow(0, 1, last)) / 2;
  return at::bucketize(at::cat(scaled).clamp(-1, 1), borders, /*out_int32=*/true).to(at::kByte);
}

// Numbers times the magnitudes of their blocks.
at::Tensor times_magnitudes(const at::Tensor& numbers, const at::Tensor& magnitudes, int64_t size) {
  const Blocks blocks(numbers, size);
  const int64_t whole = blocks.whole.size(0);
  blocks.whole.mul_(magnitudes.narrow(0, 0, whole).unsqueeze(1));
  if (blocks.rest.numel() > 0) blocks.rest.mul_(magnitudes[whole]);
  return numbers;
}

std::vector<float> make_dynamic_map() {
  constexpr int kExponents = 7;
  std::vector<float> numbers{0.0F, 1.0F};
  for (int i = 0; i < kExponents; ++i) {
    const at::Tensor borders = at::linspace(0.1, 1, (int64_t{1} << i) + 1, at::kFloat);
    const int64_t count = borders.numel() - 1;
    const at::Tensor means = (borders.narrow(0, 0, count) + borders.narrow(0, 1, count)) / 2.0 *
                             std::pow(10.0, i - (kExponents - 1));
    for (int64_t k = 0; k < count; ++k) {
      const auto mean = means[k].item<float>();
      numbers.insert(numbers.end(), {mean, -mean});
    }
  }
  std::ranges::sort(numbers);
  return numbers;
}

}  // namespace

const std::vector<float>& nf4_numbers() {
  static const std::vector<float> numbers{-1.0F,
                                          -0.6961928009986877F,
                                          -0.5250730514526367F,
                                          -0.39491748809814453F,
                                          -0.28444138169288635F,
                                          -0.18477343022823334F,
                                          -0.09105003625154495F,
                                          0.0F,
                                          0.07958029955625534F,
                                          0.16093020141124725F,
                                          0.24611230194568634F,
                                          0.33791524171829224F,
                                          0.44070982933044434F,
                                          0.5626170039176941F,
                                          0.7229568362236023F,
                                          1.0F};
  return numbers;
}

const std::vector<float>& dynamic_map() {
  static const std::vector<float> numbers = make_dynamic_map();
  return numbers;
}

WeightCode code_of(const std::string& name) {
  if (name == "nf4") return WeightCode::kNf4;
  if (name == "int8") return WeightCode::kInt8;
  if (name == "q8_0") return WeightCode::kQ8_0;
  if (name == "q4_0") return WeightCode::kQ4_0;
  throw std::invalid_argument("no code of weights: " + name);
}

QuantizedWeight::QuantizedWeight(std::vector<int64_t> shape, WeightCode code, bool nested,
                                 at::TensorOptions options)
    : shape_(std::move(shape)),
      code_(code),
      nested_(nested && code == WeightCode::kNf4),
      options_(options),
      elements_(std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<>())) {}

void QuantizedWeight::write(int64_t first, const at::Tensor& values) {
  if (!waiting_.defined()) waiting_ = at::empty({elements_}, options_.dtype(at::kFloat));
  waiting_.narrow(0, first, values.numel()).copy_(values.view(-1));
  written_ += values.numel();
  if (written_ < elements_) return;
  encode(std::exchange(waiting_, {}));
  written_ = 0;
}

void QuantizedWeight::encode(const at::Tensor& values) {
  if (code_ == WeightCode::kQ8_0 || code_ == WeightCode::kQ4_0) {
    const auto code = code_ == WeightCode::kQ8_0 ? cpu::BlockCode::kQ8_0 : cpu::BlockCode::kQ4_0;
    blocks_ = std::make_shared<const BlockWeight>(values.view(shape_), code);
    block_value_ = as_value(blocks_, shape_, options_.dtype().toScalarType());
    return;
  }
  if (code_ == WeightCode::kInt8) {
    const at::Tensor rows = values.view({-1, shape_.back()});
    absmax_ = rows.abs().amax(1);
    const at::Tensor steps = at::where(absmax_ > 0, 127.0 / absmax_, at::zeros_like(absmax_));
    codes_ = (rows * steps.unsqueeze(1)).round().to(at::kChar);
    return;
  }
  absmax_ = largest_magnitudes(values, kBlock);
  at::Tensor numbers = nearest(values, absmax_, kBlock, nf4_numbers());
  if (elements_ % 2 == 1) numbers = at::cat({numbers, at::zeros({1}, numbers.options())});
  const at::Tensor pairs = numbers.view({-1, 2});
  codes_ = pairs.select(1, 0).bitwise_left_shift(4).bitwise_or(pairs.select(1, 1));
  if (!nested_) return;
  const at::Tensor mean = absmax_.mean();
  offset_ = mean.item<double>();
  const at::Tensor rest = absmax_ - mean;
  nested_absmax_ = largest_magnitudes(rest, kNestedBlock);
  absmax_ = nearest(rest, nested_absmax_, kNestedBlock, dynamic_map());
}

at::Tensor QuantizedWeight::magnitudes() const {
  if (!nested_) return absmax_;
  const at::Tensor table = table_of(dynamic_map(), absmax_.device());
  const at::Tensor rest = table.index_select(0, absmax_.to(at::kInt));
  return times_magnitudes(rest, nested_absmax_, kNestedBlock).add_(offset_);
}

at::Tensor QuantizedWeight::value() const {
  if (blocks_) return block_value_;
  TORCH_CHECK(codes_.defined(), "[ops] expected a weight that was written, got one that was not");
  if (code_ == WeightCode::kInt8) {
    const at::Tensor rows = codes_.to(at::kFloat).mul_(absmax_.unsqueeze(1)).mul_(kInt8Step);
    return rows.to(options_.dtype().toScalarType()).view(shape_);
  }
  // Both numbers of a byte at once.
  const at::Tensor numbers = table_of(nf4_numbers(), codes_.device());
  const at::Tensor pairs = at::empty({16, 16, 2}, numbers.options());
  pairs.select(2, 0).copy_(numbers.unsqueeze(1).expand({16, 16}));
  pairs.select(2, 1).copy_(numbers.unsqueeze(0).expand({16, 16}));
  const at::Tensor all = pairs.view({256, 2}).index_select(0, codes_.to(at::kInt)).view(-1);
  return times_magnitudes(all.narrow(0, 0, elements_), magnitudes(), kBlock)
      .to(options_.dtype().toScalarType())
      .view(shape_);
}

uint64_t QuantizedWeight::bytes() const {
  uint64_t bytes = blocks_ ? blocks_->bytes() : 0;
  for (const at::Tensor& part : {codes_, absmax_, nested_absmax_, waiting_})
    bytes += part.defined() ? part.nbytes() : 0;
  return bytes;
}

}  // namespace qianli::ops
