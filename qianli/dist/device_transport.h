// How tensors that live on a device travel between ranks. A World that has a transport gives each
// of its groups a device side beside Gloo: NCCL's or HCCL's communicators behind c10d's interface,
// from a library that is loaded at run time. Internal to the room and to its tests; others get one
// from device_communication.h.
//
// What a transport's communicators may rely on, as NCCL does:
// - All ranks of a communicator start the same operations in the same order. A communicator of a
//   route (two ranks, one way) carries messages alone, and the receiver asks for them in the order
//   in which they are sent; tags say nothing.
// - Each has a stream of its own. An operation begins behind what the current stream has been given
//   so far; waiting for it makes the current stream wait, not the thread.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <functional>
#include <string>

#include "qianli/config/communicators.h"

namespace qianli::dist {

struct Communicator {
  c10::intrusive_ptr<c10d::Store> store;  // nobody else's keys
  int64_t rank = 0, size = 0;
  std::string name;       // for messages
  bool is_route = false;  // from rank 0 to rank 1
  config::CommunicatorOptions options;
};

class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;
  // Whether this, and not Gloo, carries the tensor.
  virtual bool takes(const at::Tensor& tensor) const = 0;
  // Every rank of the communicator calls it at the same time. Throws c10::Error.
  virtual c10::intrusive_ptr<c10d::Backend> open(const Communicator& communicator) const = 0;
  // A number that the transport takes: the first one that a communicator carries.
  virtual at::Tensor token() const = 0;
  // Called right after work->wait(): tells from then on, and from any thread, whether the current
  // stream has come past it. Keeps no tensor alive.
  virtual std::function<bool()> mark(const c10::intrusive_ptr<c10d::Work>& work) const = 0;
};

}  // namespace qianli::dist
