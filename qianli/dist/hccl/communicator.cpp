// HCCL's communicators, as torch_npu has them, and the NPU itself: all of libqianli_npu.so.
#include <ATen/Context.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch_npu/csrc/core/npu/NPUCachingAllocator.h>
#include <torch_npu/csrc/core/npu/NPUFunctions.h>
#include <torch_npu/csrc/distributed/ProcessGroupHCCL.hpp>

#include <cstdlib>

#include "qianli/device/npu_plugin.h"
#include "qianli/dist/communicator_plugin.h"

namespace {

using Hccl = c10d_npu::ProcessGroupHCCL;

constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 20);
constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;

}  // namespace

#define QIANLI_EXPORT extern "C" __attribute__((visibility("default")))

QIANLI_EXPORT int qianli_npu_device_count() {
  const int devices = c10_npu::device_count();
  if (devices > 0) at::globalContext().lazyInitDevice(c10::kPrivateUse1);
  return devices;
}

QIANLI_EXPORT void qianli_npu_memory(int device, QianliNpuMemory* result) {
  const auto stats = c10_npu::NPUCachingAllocator::getDeviceStats(device);
  *result = {stats.allocated_bytes[0].current, stats.allocated_bytes[0].peak};
}

QIANLI_EXPORT void qianli_set_up_communicators(std::int64_t) {
  const auto set = [](const char* name, const char* value) { ::setenv(name, value, 1); };
  set("HCCL_ASYNC_ERROR_HANDLING", "0");
  set("TORCH_HCCL_ENABLE_MONITORING", "0");
  set("TORCH_HCCL_DUMP_ON_TIMEOUT", "0");
  set("TORCH_HCCL_BLOCKING_WAIT", "0");
  set("HCCL_BLOCKING_WAIT", "0");
  set("HCCL_DESYNC_DEBUG", "0");
}

QIANLI_EXPORT c10d::Backend* qianli_communicator(const QianliCommunicator* wanted) {
  const at::Device device(c10::kPrivateUse1, static_cast<c10::DeviceIndex>(wanted->device));
  const c10::impl::VirtualGuardImpl guard(device.type());
  guard.setDevice(device);
  auto options = Hccl::Options::create(/*_is_high_priority_stream=*/wanted->carries_messages);
  options->timeout = kForever;
  options->opTimeout = kForever;
  options->group_id = wanted->name;
  // In MB, as HCCL counts; at least 1.
  if (wanted->buffer_bytes > 0) {
    options->hccl_config["hccl_buffer_size"] =
        static_cast<uint32_t>((wanted->buffer_bytes + kMebibyte - 1) / kMebibyte);
  }
  auto store = c10::intrusive_ptr<c10d::Store>::reclaim_copy(wanted->store);
  return c10::make_intrusive<Hccl>(std::move(store), wanted->rank, wanted->size, options).release();
}
