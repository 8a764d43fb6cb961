#include "qianli/dist/gloo_backend.h"

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <cstdlib>

namespace qianli::dist {
namespace {

using Gloo = c10d::ProcessGroupGloo;

}  // namespace

void set_up_c10d() {
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/1);
  ::setenv("TORCH_CPP_LOG_LEVEL", "ERROR", /*overwrite=*/0);
  c10::initLogging();
}

c10::intrusive_ptr<c10d::Backend> gloo_backend(const c10::intrusive_ptr<c10d::Store>& store,
                                               int64_t rank, int64_t size, bool loopback,
                                               std::chrono::milliseconds deadline) {
  auto options = Gloo::Options::create(deadline);
  // GLOO_SOCKET_IFNAME names the network interface, as in PyTorch.
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface && *interface && !loopback) {
    options->devices.push_back(Gloo::createDeviceForInterface(interface));
  } else if (loopback) {
    options->devices.push_back(Gloo::createDeviceForHostname("127.0.0.1"));
  } else {
    options->devices.push_back(Gloo::createDefaultDevice());
  }
  options->threads = 2;
  return c10::make_intrusive<Gloo>(store, static_cast<int>(rank), static_cast<int>(size), options);
}

}  // namespace qianli::dist
