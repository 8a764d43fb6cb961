// How two tensors of numbers differ: where first, where most, by how much.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qianli/formats/dtype.h"

namespace qianli::convert {

// An element of both sides; float32 and float64 are doubles without loss.
struct ElementPair {
  int64_t at = -1;  // counted in row-major order from the start of the tensor; -1: none
  double a = 0, b = 0;
};

// |a - b|; 0 for two NaNs, infinite where only one is a NaN or infinite.
double distance(double a, double b);

// What comparing a stretch of elements has found.
struct Tally {
  int64_t differing = 0;  // elements whose bits are not the same
  double largest = 0;     // distance
  double magnitude = 0;   // the largest finite |a| or |b|
  ElementPair first;      // that differs
  ElementPair worst;      // of the largest distance, the first of several

  // What a later stretch has found.
  void join(const Tally& later);
};

// `first`: where the stretch begins in its tensor.
Tally compare_numbers(std::span<const float> a, std::span<const float> b, int64_t first);
Tally compare_numbers(std::span<const double> a, std::span<const double> b, int64_t first);

// A tensor that is not the same on both sides.
struct TensorDifference {
  using Shape = std::vector<int64_t>;

  std::string name;
  std::optional<Shape> shape_a, shape_b;              // absent: not on that side
  formats::Dtype compared_as = formats::Dtype::kF32;  // F32 or F64
  Tally elements;                                     // where the shapes are the same

  bool has_elements() const { return shape_a && shape_a == shape_b; }
  // The largest distance as a share of the largest magnitude; infinite without elements.
  double relative() const;
  // Whether no distance is above tolerance * magnitude; of tolerance 0 whether all bits are equal.
  bool within(double tolerance) const;
  // The place of an element along each axis.
  Shape index_of(const ElementPair& element) const;
};

}  // namespace qianli::convert
