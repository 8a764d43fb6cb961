// Ranks on GPUs, over NCCL. NCCL wants a GPU for each rank, so these run where there are two.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "qianli/device/device.h"
#include "qianli/dist/device_communication.h"
#include "qianli/dist/rank_threads.h"

namespace qianli::dist {
namespace {

using namespace std::chrono_literals;

class GpuRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto& cuda = device::CudaLibrary::get();
    if (cuda.devices().size() < 2)
      GTEST_SKIP() << "expected two GPUs, got " << cuda.devices().size() << " " << cuda.why();
  }
  // Two ranks as threads, each with a GPU and a transport of its own.
  static void run(const std::function<void(const World&, at::Device)>& body,
                  std::chrono::milliseconds deadline = 60s) {
    const std::array devices{devices_of({at::kCUDA, 0}, {}), devices_of({at::kCUDA, 1}, {})};
    run_ranks(
        2,
        [&](const World& world) {
          body(world, device::choose("cuda", {world.rank(), world.size()}));
        },
        deadline, [&](int64_t rank) { return devices[static_cast<size_t>(rank)]; });
  }
};

TEST_F(GpuRanks, communicate) {
  run([](const World& world, at::Device device) {
    const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
    const Group group = world.all();
    const int64_t r = group.rank();
    at::Tensor x = at::full({3}, r + 1, options);
    group.all_reduce(x);
    EXPECT_TRUE(at::equal(x.cpu(), at::full({3}, 3.0F)));
    EXPECT_TRUE(
        at::equal(group.all_gather(at::full({1}, r, options)).cpu(), at::arange(2, at::kFloat)));
    const at::Tensor rows = group.all_to_all(at::full({3}, r, options), {1, 2}, {1 + r, 1 + r});
    EXPECT_EQ(rows.cpu().sum().item<float>(), static_cast<float>(1 + r));
    at::Tensor host = at::full({1}, r, at::kLong);
    group.all_reduce(host);
    EXPECT_EQ(host.item<int64_t>(), 1);

    // Both send before they receive, more than fits into NCCL's buffers.
    group.open_routes({{0, 1}, {1, 0}});
    const at::Tensor large = at::full({int64_t{1} << 24}, r, options);
    const at::Tensor arrived = at::empty_like(large);
    Pending sent = group.start_send(large, 1 - r);
    group.start_receive(arrived, 1 - r).wait();
    sent.wait();
    EXPECT_EQ(arrived.mean().item<float>(), static_cast<float>(1 - r));
  });
}

TEST_F(GpuRanks, learn_that_one_of_them_does_not_come) {
  EXPECT_THROW(run(
                   [](const World& world, at::Device device) {
                     const Group group = world.all();
                     const at::Tensor x = at::full({1}, 1.0, at::TensorOptions().device(device));
                     if (world.rank() == 1) return std::this_thread::sleep_for(10s);
                     group.all_reduce(x);
                     x.cpu();  // ends with the communicators
                     group.barrier();
                   },
                   4s),
               LostRankError);
}

}  // namespace
}  // namespace qianli::dist
