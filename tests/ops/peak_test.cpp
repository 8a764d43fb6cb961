#include "qianli/ops/peak.h"

#include <gtest/gtest.h>

#include "qianli/device/device.h"

namespace qianli::ops {
namespace {

TEST(Peak, IsMeasuredAndNeverBelowWhatWasReached) {
  device::start();
  const c10::Device cpu(c10::kCPU);
  const double measured = peak_flops(cpu, c10::kFloat, 0);
  EXPECT_GT(measured, 1e8);
  EXPECT_EQ(peak_flops(cpu, c10::kFloat, measured / 2), measured);
  EXPECT_GE(peak_flops(cpu, c10::kFloat, 100 * measured), 100 * measured);
  EXPECT_GE(peak_flops(cpu, c10::kFloat, 0), 100 * measured);
  EXPECT_GT(peak_flops(cpu, c10::kDouble, 0), 1e8) << "each number type has a peak of its own";
}

}  // namespace
}  // namespace qianli::ops
