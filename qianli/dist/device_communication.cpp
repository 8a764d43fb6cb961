#include "qianli/dist/device_communication.h"

#include <ATen/ops/ones.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/device/device.h"
#include "qianli/dist/communicator_plugin.h"
#include "qianli/dist/device_transport.h"

namespace qianli::dist {
namespace {

class LibraryTransport : public DeviceTransport {
 public:
  LibraryTransport(c10::Device device, decltype(&qianli_communicator) open)
      : device_(device), open_(open) {}

  bool takes(const at::Tensor& tensor) const override { return tensor.device() == device_; }

  c10::intrusive_ptr<c10d::Backend> open(const Communicator& communicator) const override {
    const QianliCommunicator wanted{.store = communicator.store.get(),
                                    .rank = static_cast<int>(communicator.rank),
                                    .size = static_cast<int>(communicator.size),
                                    .device = device_.index(),
                                    .name = communicator.name.c_str(),
                                    .carries_messages = communicator.is_route,
                                    .min_ctas = communicator.options.min_ctas,
                                    .max_ctas = communicator.options.max_ctas,
                                    .buffer_bytes = communicator.options.buffer_bytes};
    return c10::intrusive_ptr<c10d::Backend>::reclaim(open_(&wanted));
  }

  at::Tensor token() const override {
    return at::ones({1}, at::TensorOptions().dtype(at::kFloat).device(device_));
  }

  std::function<bool()> mark(const c10::intrusive_ptr<c10d::Work>&) const override {
    const auto event =
        std::make_shared<c10::Event>(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    event->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
    return [event] { return event->query(); };
  }

 private:
  c10::Device device_;
  decltype(&qianli_communicator) open_;
};

void* symbol(c10::Device device, const char* name) {
  return device.is_cuda() ? device::CudaLibrary::get().symbol(name)
                          : device::NpuLibrary::get().symbol(name);
}

}  // namespace

Devices devices_of(c10::Device device, std::map<std::string, config::CommunicatorOptions> options) {
  if (device.is_cpu()) return {};
  const auto open =
      reinterpret_cast<decltype(&qianli_communicator)>(symbol(device, "qianli_communicator"));
  const auto set_up = reinterpret_cast<decltype(&qianli_set_up_communicators)>(
      symbol(device, "qianli_set_up_communicators"));
  if (!open || !set_up) {
    throw ConfigError("dist",
                      "expected communicators in the library of " + device.str() + ", got none",
                      "it was built without NCCL's header: run scripts/setup.sh and build again");
  }
  int64_t largest = 0;
  for (const auto& [group, own] : options) largest = std::max(largest, own.buffer_bytes);
  set_up(largest);
  return {std::make_shared<LibraryTransport>(device, open), std::move(options)};
}

}  // namespace qianli::dist
