// NCCL's communicators, as c10d has them. Part of libqianli_cuda.so.
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include <cstdlib>
#include <string>

#include "qianli/dist/communicator_plugin.h"

// Options holds an ncclConfig_t, whose size changes from version to version: LibTorch 2.11.0's.
static_assert(NCCL_VERSION_CODE == NCCL_VERSION(2, 28, 9));

namespace {

using Nccl = c10d::ProcessGroupNCCL;

// For what ends when qianli/dist/device_watch.h says so.
constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 20);

}  // namespace

#define QIANLI_EXPORT extern "C" __attribute__((visibility("default")))

QIANLI_EXPORT void qianli_set_up_communicators(std::int64_t buffer_bytes) {
  const auto set = [](const char* name, const std::string& value, bool over_users = true) {
    ::setenv(name, value.c_str(), over_users ? 1 : 0);
  };
  // c10d's threads neither end communicators nor the process, and write no files: DeviceWatch ends
  // communicators, and the process ends by an exception with its checkpoints whole.
  set("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0");
  set("TORCH_NCCL_ENABLE_MONITORING", "0");
  set("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0");
  set("TORCH_NCCL_PROPAGATE_ERROR", "0");
  set("TORCH_NCCL_DUMP_ON_TIMEOUT", "0");
  set("TORCH_NCCL_DESYNC_DEBUG", "0");
  // wait() is for streams.
  set("TORCH_NCCL_BLOCKING_WAIT", "0");
  set("TORCH_NCCL_USE_COMM_NONBLOCKING", "0");
  // Messages have communicators of their own: one after the other is what they should be.
  set("TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING", "0");
  if (buffer_bytes > 0) set("NCCL_BUFFSIZE", std::to_string(buffer_bytes), /*over_users=*/false);
}

QIANLI_EXPORT c10d::Backend* qianli_communicator(const QianliCommunicator* wanted) {
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(wanted->device));
  // Streams come from two pools of 32 each; communicators that shared one would wait for each
  // other. Messages take those of high priority.
  auto options = Nccl::Options::create(/*is_high_priority_stream=*/wanted->carries_messages);
  options->timeout = kForever;
  options->group_name = wanted->name;
  if (wanted->min_ctas > 0) options->config.minCTAs = static_cast<int>(wanted->min_ctas);
  if (wanted->max_ctas > 0) options->config.maxCTAs = static_cast<int>(wanted->max_ctas);
  auto store = c10::intrusive_ptr<c10d::Store>::reclaim_copy(wanted->store);
  auto group = c10::make_intrusive<Nccl>(std::move(store), wanted->rank, wanted->size, options);
  group->setBoundDeviceId(device);
  group->eagerConnectSingleDevice(device);
  return group.release();
}
