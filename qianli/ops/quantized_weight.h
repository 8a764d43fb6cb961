// A weight that stays as it is and is kept in few bits (QLoRA, Dettmers et al. 2023); its numbers
// are made again for every use. Codes and numbers are those of bitsandbytes:
//
//   nf4    blocks of 64 neighbours (row after row) and their largest magnitude; a number is one of
//          16 fixed ones times that. Two codes in a byte, the first one in the high half. With
//          `nested` the magnitudes less their mean are kept in 8 bits, in blocks of 256 of them
//          with their largest magnitude, by a map of 256 numbers.
//   int8   a row is whole numbers up to 127 times its largest magnitude / 127.
//
// Or one that is computed with as it is (inference): q8_0 and q4_0, see block_weight.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qianli/ops/block_weight.h"

namespace qianli::ops {

enum class WeightCode { kNf4, kInt8, kQ8_0, kQ4_0 };
WeightCode code_of(const std::string& name);  // nf4, int8, q8_0, q4_0

class QuantizedWeight {
 public:
  // Of numbers of the dtype and on the device of `options`. Without a value until all of it is
  // written.
  QuantizedWeight(std::vector<int64_t> shape, WeightCode code, bool nested,
                  at::TensorOptions options);

  // Elements [first, first + values.numel()). They are encoded when every one has been written, in
  // whatever order; until then they take memory.
  void write(int64_t first, const at::Tensor& values);
  // Of the weight's shape; made for each call, or the blocks themselves.
  at::Tensor value() const;
  uint64_t bytes() const;

  const at::Tensor& codes() const { return codes_; }    // uint8 [(n + 1) / 2], or int8 [n]
  const at::Tensor& absmax() const { return absmax_; }  // float32, or uint8 where nested
  const at::Tensor& nested_absmax() const { return nested_absmax_; }  // float32
  double offset() const { return offset_; }                           // the mean of the magnitudes

 private:
  void encode(const at::Tensor& values);
  at::Tensor magnitudes() const;  // float32, one for each block or row

  std::vector<int64_t> shape_;
  WeightCode code_;
  bool nested_;
  at::TensorOptions options_;
  int64_t elements_, written_ = 0;
  at::Tensor waiting_;  // float32, while it is written
  at::Tensor codes_, absmax_, nested_absmax_;
  double offset_ = 0;
  std::shared_ptr<const BlockWeight> blocks_;
  at::Tensor block_value_;
};

// The 256 numbers in [-1, 1] of bitsandbytes' dynamic map, ascending.
const std::vector<float>& dynamic_map();
// The 16 of NF4, ascending.
const std::vector<float>& nf4_numbers();

}  // namespace qianli::ops
