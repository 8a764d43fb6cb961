// Waits for descriptors and calls whoever watches them. One thread.
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "qianli/launch/coordinator.h"

namespace qianli::launch {

class Poller {
 public:
  using Handler = std::function<void()>;

  // The handler is called when one of `events` (POLLIN, POLLOUT) is there, or the other end is
  // gone.
  void watch(int fd, short events, Handler handler);
  // 0: not looked at, not even for its end.
  void change(int fd, short events);
  void forget(int fd);
  // Waits until something is there or the time has come, then calls every handler that is concerned
  // once. A handler may watch and forget as it likes.
  void wait(Time until);

 private:
  struct Watch {
    short events;
    std::shared_ptr<Handler> handler;
  };
  std::map<int, Watch> watches_;
};

}  // namespace qianli::launch
