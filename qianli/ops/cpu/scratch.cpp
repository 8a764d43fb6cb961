#include <hwy/aligned_allocator.h>

#include <new>

#include "qianli/ops/cpu/parallel.h"

namespace qianli::ops::cpu {
namespace {

struct Buffer {
  hwy::AlignedFreeUniquePtr<float[]> data;
  size_t size = 0;
};

}  // namespace

float* scratch(Slot slot, size_t floats) {
  thread_local Buffer buffers[3];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.size < floats) {
    buffer.data.reset();
    buffer.size = 0;
    buffer.data = hwy::AllocateAligned<float>(floats);
    if (!buffer.data) throw std::bad_alloc();
    buffer.size = floats;
  }
  return buffer.data.get();
}

}  // namespace qianli::ops::cpu
