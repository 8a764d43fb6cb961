#include "qianli/device/allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace qianli::device {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kMappedFrom = size_t{4}
                               << 20;  // blocks of this size and above are mapped on huge pages
constexpr uint64_t kSlack = uint64_t{64} << 20;

// Eight sizes per power of two: at most an eighth is wasted, and equal requests meet equal blocks.
size_t rounded(size_t bytes) {
  if (bytes <= 512) return (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t step = bytes >= kMappedFrom ? std::max(std::bit_floor(bytes) / 8, kHugePage)
                                           : std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

class Pool {
 public:
  void* take(size_t bytes) {
    const size_t size = rounded(bytes);
    {
      std::lock_guard lock(mutex_);
      stats_.in_use_bytes += size;
      stats_.peak_in_use_bytes = std::max(stats_.peak_in_use_bytes, stats_.in_use_bytes);
      auto& blocks = free_[size];
      if (!blocks.empty()) {
        void* block = blocks.back();
        blocks.pop_back();
        stats_.cached_bytes -= size;
        return block;
      }
    }
    void* block = obtain(size);
    if (!block) {
      release_all();
      block = obtain(size);
    }
    if (!block) {
      std::lock_guard lock(mutex_);
      stats_.in_use_bytes -= size;
      throw std::bad_alloc();
    }
    return block;
  }

  void give_back(void* block, size_t bytes) {
    const size_t size = rounded(bytes);
    std::lock_guard lock(mutex_);
    stats_.in_use_bytes -= size;
    stats_.cached_bytes += size;
    free_[size].push_back(block);
    // A step's blocks wait for the next step; shapes that never come back must not pile up beyond
    // what the process once needed at the same time.
    const uint64_t held = stats_.in_use_bytes + stats_.cached_bytes;
    const uint64_t limit = stats_.peak_in_use_bytes + kSlack;
    if (held > limit) trim(stats_.cached_bytes - (held - limit));
  }

  void release_all() {
    std::lock_guard lock(mutex_);
    trim(0);
  }

  HostMemory stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    std::lock_guard lock(mutex_);
    stats_.peak_in_use_bytes = stats_.in_use_bytes;
  }

 private:
  static void* obtain(size_t size) {
    if (size < kMappedFrom) return std::aligned_alloc(kAlignment, size);
    void* block = std::aligned_alloc(kHugePage, size);
    if (block) ::madvise(block, size, MADV_HUGEPAGE);
    return block;
  }

  // Frees cached blocks, largest first, until at most `keep` bytes wait. Holds the lock.
  void trim(uint64_t keep) {
    for (auto place = free_.rbegin(); place != free_.rend() && stats_.cached_bytes > keep;
         ++place) {
      auto& [size, blocks] = *place;
      while (!blocks.empty() && stats_.cached_bytes > keep) {
        std::free(blocks.back());
        blocks.pop_back();
        stats_.cached_bytes -= size;
      }
    }
  }

  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  HostMemory stats_;
};

Pool& pool() {
  static auto* instance = new Pool;  // outlives every tensor
  return *instance;
}

// Carries the size of a block in front of its data.
struct Header {
  size_t bytes;
};
static_assert(sizeof(Header) <= kAlignment);

void release(void* data) {
  if (!data) return;
  auto* header = reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment);
  pool().give_back(header, header->bytes);
}

class CachingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(c10::kCPU)};
    if (bytes > SIZE_MAX - kAlignment) throw std::bad_alloc();
    auto* header = static_cast<Header*>(pool().take(bytes + kAlignment));
    header->bytes = bytes + kAlignment;
    void* data = reinterpret_cast<char*>(header) + kAlignment;
    return {data, data, &release, c10::Device(c10::kCPU)};
  }
  // oneDNN and others take raw memory, which needs data and context to be the same pointer.
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* destination, const void* source, std::size_t bytes) const override {
    std::memcpy(destination, source, bytes);
  }
};

}  // namespace

void install_caching_allocator() {
  static CachingAllocator allocator;
  c10::SetCPUAllocator(&allocator, /*priority=*/100);
}

HostMemory host_memory() { return pool().stats(); }
void reset_peak_host_memory() { pool().reset_peak(); }
void release_cached_host_memory() { pool().release_all(); }

}  // namespace qianli::device
