#include "qianli/launch/connection.h"

#include <errno.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>

#include "qianli/base/error.h"

namespace qianli::launch {
namespace {

constexpr size_t kMostOutgoing = 1 << 20;  // bytes that a peer may leave unread

}  // namespace

Connection::Connection(Poller& poller, Descriptor socket, OnMessage on_message, OnClosed on_closed)
    : poller_(poller),
      socket_(std::move(socket)),
      on_message_(std::move(on_message)),
      on_closed_(std::move(on_closed)) {
  const int on = 1;
  ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  poller_.watch(socket_.get(), POLLIN, [this] { ready(); });
}

Connection::~Connection() { close(); }

void Connection::close() {
  if (socket_) poller_.forget(socket_.get());
  socket_.close();
}

void Connection::fail(const std::string& why) {
  if (!socket_) return;
  close();
  on_closed_(why);
}

void Connection::send(const Message& message) {
  if (!socket_) return;
  outgoing_ += encode(message);
  if (outgoing_.size() > kMostOutgoing) return fail("it does not read what it is sent");
  write_some();
}

void Connection::ready() {
  if (!outgoing_.empty()) write_some();
  if (socket_) read_some();
}

void Connection::write_some() {
  const ssize_t count =
      ::send(socket_.get(), outgoing_.data(), outgoing_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0 && errno != EAGAIN && errno != EINTR)
    return fail(fmt::format("the connection broke ({})", std::strerror(errno)));
  if (count > 0) outgoing_.erase(0, static_cast<size_t>(count));
  poller_.change(socket_.get(), outgoing_.empty() ? POLLIN : POLLIN | POLLOUT);
}

void Connection::read_some() {
  char bytes[4096];
  const ssize_t count = ::recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (count == 0) return fail("the connection was closed");
  if (count < 0) {
    if (errno != EAGAIN && errno != EINTR)
      fail(fmt::format("the connection broke ({})", std::strerror(errno)));
    return;
  }
  incoming_.append(bytes, static_cast<size_t>(count));
  size_t begin = 0;
  try {
    for (size_t end; socket_ && (end = incoming_.find('\n', begin)) != std::string::npos;
         begin = end + 1) {
      on_message_(decode(std::string_view(incoming_).substr(begin, end - begin)));
    }
  } catch (const DataError&) {
    return fail("it does not speak the launchers' protocol");
  }
  incoming_.erase(0, begin);
  if (incoming_.size() > kMostLine) fail("it does not speak the launchers' protocol");
}

}  // namespace qianli::launch
