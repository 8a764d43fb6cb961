// A device's communicators without a device: tensors of floating-point numbers travel by the rules
// that NCCL's communicators have, over Gloo. What would make NCCL hang or mix up tensors is noted:
// - ranks of a communicator that start other operations, or in another order;
// - a route whose receiver asks for messages in another order than they are sent (by size and
// type);
// - collectives on a route, messages on the communicator of a group.
// A message leaves no earlier than its receiver has come to it, so what deadlocks there does here.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "qianli/dist/device_transport.h"

namespace qianli::testing {

class OrderedTransport : public dist::DeviceTransport {
 public:
  // What an operation's wait() does: as if the thread was the stream, or as a library's does.
  enum class Wait { kStays, kReturns };
  explicit OrderedTransport(std::chrono::milliseconds deadline = std::chrono::seconds(30),
                            Wait wait = Wait::kStays)
      : record_(std::make_shared<Record>()), deadline_(deadline), wait_(wait) {}

  bool takes(const at::Tensor& tensor) const override;
  c10::intrusive_ptr<c10d::Backend> open(const dist::Communicator& communicator) const override;
  at::Tensor token() const override;
  std::function<bool()> mark(const c10::intrusive_ptr<c10d::Work>& work) const override;

  std::vector<std::string> broken_rules() const;
  // Operations of all ranks; "tensor 2", "stages 0 to 1": name of a communicator and its size.
  int64_t operations() const;
  std::vector<dist::Communicator> opened() const;  // without their stores
  int64_t aborted() const;

  struct Record {
    std::mutex mutex;
    std::vector<std::string> broken;
    std::vector<dist::Communicator> opened;
    int64_t operations = 0, aborted = 0;
  };

 private:
  std::shared_ptr<Record> record_;
  std::chrono::milliseconds deadline_;
  Wait wait_;
};

}  // namespace qianli::testing
