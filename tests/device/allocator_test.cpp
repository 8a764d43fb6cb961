#include "qianli/device/allocator.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstring>

namespace qianli::device {
namespace {

// Libraries below LibTorch (oneDNN's bf16 products) take memory this way instead of through
// tensors.
TEST(CachingAllocator, GivesRawMemoryAndTakesItBack) {
  install_caching_allocator();
  c10::Allocator* allocator = c10::GetCPUAllocator();
  const auto before = host_memory().in_use_bytes;
  void* memory = allocator->raw_allocate(1000);
  ASSERT_NE(memory, nullptr);
  std::memset(memory, 1, 1000);
  EXPECT_GE(host_memory().in_use_bytes, before + 1000);
  allocator->raw_deallocate(memory);
  EXPECT_EQ(host_memory().in_use_bytes, before);
}

TEST(CachingAllocator, GivesNothingForNoBytes) {
  install_caching_allocator();
  const auto before = host_memory().in_use_bytes;
  c10::Allocator* allocator = c10::GetCPUAllocator();
  allocator->raw_deallocate(allocator->raw_allocate(0));
  EXPECT_EQ(host_memory().in_use_bytes, before);
}

TEST(CachingAllocator, ServesProductsInBf16) {
  install_caching_allocator();
  const at::Tensor a = at::ones({256, 512}, at::kBFloat16);
  EXPECT_EQ(at::mm(a, a.t()).max().item<float>(), 512.0F);
}

}  // namespace
}  // namespace qianli::device
