#include <cuda_runtime.h>
#include <ucontext.h>

#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "qianli/ops/cuda/launch.cuh"
#include "qianli/ops/cuda/scratch.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

constexpr std::size_t kStackBytes = 64 * 1024;
constexpr int kWarp = 32, kMostThreads = 1024;

enum class State { kReady, kAtBarrier, kAtShuffle, kDone };
struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  dim3 thread;
  State state;
  std::uint64_t bits;
  int mask;
};

ucontext_t scheduler;
std::vector<Fiber> fibers;  // of the running block; stacks are kept for the next one
int current = 0, count = 0;
const std::function<void()>* body = nullptr;

void fiber_main() {
  (*body)();
  fibers[current].state = State::kDone;
  swapcontext(&fibers[current].context, &scheduler);
}

void wait(State state) {
  Fiber& fiber = fibers[current];
  fiber.state = state;
  swapcontext(&fiber.context, &scheduler);
}

void resume(int i) {
  current = i;
  threadIdx = fibers[i].thread;
  swapcontext(&scheduler, &fibers[i].context);
}

void start_fibers() {
  if (fibers.empty()) fibers = std::vector<Fiber>(kMostThreads);
  for (int i = 0; i < count; ++i) {
    Fiber& fiber = fibers[i];
    const unsigned number = static_cast<unsigned>(i);
    fiber.thread = dim3(number % blockDim.x, number / blockDim.x % blockDim.y,
                        number / (blockDim.x * blockDim.y));
    fiber.state = State::kReady;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&fiber.context, fiber_main, 0);
  }
}

// If all 32 threads of the warp wait in a shuffle, gives each what it asked for and lets it go on.
bool finish_shuffle(int warp) {
  if (warp + kWarp > count) return false;
  for (int i = warp; i < warp + kWarp; ++i) {
    if (fibers[i].state != State::kAtShuffle) return false;
  }
  std::uint64_t received[kWarp];
  for (int lane = 0; lane < kWarp; ++lane) {
    received[lane] = fibers[warp + (lane ^ fibers[warp + lane].mask)].bits;
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    fibers[warp + lane].bits = received[lane];
    fibers[warp + lane].state = State::kReady;
  }
  return true;
}

// Runs a warp until all its threads are done or wait for other warps.
void run_warp(int warp, bool backwards) {
  const int end = warp + kWarp < count ? warp + kWarp : count;
  do {
    for (int i = warp; i < end; ++i) {
      const int thread = backwards ? end - 1 - (i - warp) : i;
      if (fibers[thread].state == State::kReady) resume(thread);
    }
  } while (finish_shuffle(warp));
}

bool finish_barrier() {
  bool any = false;
  for (int i = 0; i < count; ++i) {
    if (fibers[i].state == State::kAtShuffle) return false;
    any = any || fibers[i].state == State::kAtBarrier;
  }
  for (int i = 0; i < count; ++i) {
    if (fibers[i].state == State::kAtBarrier) fibers[i].state = State::kReady;
  }
  return any;
}

// Every warp runs as far ahead of the others as the barriers let it, and every second block runs
// its threads backwards: a missing barrier cannot please both orders.
void run_block(bool backwards, const char* name) {
  start_fibers();
  const int last = (count - 1) / kWarp * kWarp;
  do {
    for (int warp = 0; warp <= last; warp += kWarp) {
      run_warp(backwards ? last - warp : warp, backwards);
    }
  } while (finish_barrier());
  for (int i = 0; i < count; ++i) {
    if (fibers[i].state != State::kDone) {
      throw std::logic_error(std::string(name) + ": threads of a warp disagree about a shuffle");
    }
  }
}

}  // namespace

std::uint64_t exchange(std::uint64_t bits, int mask) {
  fibers[current].bits = bits;
  fibers[current].mask = mask;
  wait(State::kAtShuffle);
  return fibers[current].bits;
}

void run(const char* name, dim3 grid, dim3 block, const std::function<void()>& thread) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) {
    throw std::runtime_error(std::string(name) + ": a device would refuse this grid or block");
  }
  body = &thread;
  count = static_cast<int>(threads);
  gridDim = grid;
  blockDim = block;
  bool backwards = false;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block(backwards, name);
        backwards = !backwards;
      }
    }
  }
}

}  // namespace emulation

void __syncthreads() { emulation::wait(emulation::State::kAtBarrier); }

namespace qianli::ops::cuda {

void check(int status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(what);
}

// Filled with NaN bytes: nothing may rely on scratch memory being zero.
Scratch::Scratch(std::size_t bytes, Stream) : data_(::operator new(bytes, std::align_val_t(256))) {
  std::memset(data_, 0xff, bytes);
}
Scratch::~Scratch() { ::operator delete(data_, std::align_val_t(256)); }

}  // namespace qianli::ops::cuda
