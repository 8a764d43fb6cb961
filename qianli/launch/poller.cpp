#include "qianli/launch/poller.h"

#include <errno.h>
#include <poll.h>

#include <algorithm>
#include <system_error>
#include <vector>

namespace qianli::launch {

void Poller::watch(int fd, short events, Handler handler) {
  watches_[fd] = {events, std::make_shared<Handler>(std::move(handler))};
}

void Poller::change(int fd, short events) {
  if (const auto found = watches_.find(fd); found != watches_.end()) found->second.events = events;
}

void Poller::forget(int fd) { watches_.erase(fd); }

void Poller::wait(Time until) {
  std::vector<pollfd> waiting;
  std::vector<std::shared_ptr<Handler>> handlers;
  for (const auto& [fd, watch] : watches_) {
    if (watch.events == 0) continue;
    waiting.push_back({.fd = fd, .events = watch.events, .revents = 0});
    handlers.push_back(watch.handler);
  }
  constexpr auto kLongest = std::chrono::milliseconds(std::chrono::hours(1));
  auto rest = until == Time::max()
                  ? kLongest
                  : std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
  rest = std::clamp(rest, std::chrono::milliseconds(0), kLongest);
  const int ready = ::poll(waiting.data(), waiting.size(), static_cast<int>(rest.count()));
  if (ready < 0 && errno != EINTR)
    throw std::system_error(errno, std::generic_category(), "cannot wait for processes");
  if (ready <= 0) return;
  for (size_t i = 0; i < waiting.size(); ++i) {
    const auto found = watches_.find(waiting[i].fd);
    // Forgotten meanwhile, or the number belongs to something else by now.
    if (waiting[i].revents == 0 || found == watches_.end() || found->second.handler != handlers[i])
      continue;
    (*handlers[i])();
  }
}

}  // namespace qianli::launch
