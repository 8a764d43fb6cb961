// How fast the device multiplies matrices: what model FLOPs utilisation is measured against.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace qianli::ops {

// Measured, not promised: the best of several square products of `dtype` by gemm_nt, which is what
// the model uses, in FLOP/s. Takes about `seconds` (at least three runs).
double measure_gemm_flops(c10::Device device, c10::ScalarType dtype, double seconds = 0.3);

// The highest rate known in this process, in FLOP/s: measured at the first call, and again where
// `reached`, the rate of the caller's own work, is higher. Other load can make a measurement too
// low; a rate that was reached is one the device has.
double peak_flops(c10::Device device, c10::ScalarType dtype, double reached);

}  // namespace qianli::ops
