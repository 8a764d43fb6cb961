#include "qianli/launch/client.h"

#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

namespace qianli::launch {
namespace {

constexpr auto kFirstPause = std::chrono::milliseconds(100);
constexpr auto kLongestPause = std::chrono::seconds(2);
constexpr int kBeatsPerTimeout = 4;

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

Client::Client(Poller& poller, Options options, Time now)
    : poller_(poller),
      options_(std::move(options)),
      started_(now),
      next_try_(now),
      heard_(now),
      spoken_(now),
      pause_(kFirstPause) {}

Client::~Client() {
  if (socket_) poller_.forget(socket_.get());
}

void Client::try_to_connect(Time now) {
  next_try_ = now + pause_;
  pause_ = std::min<Clock::duration>(pause_ * 2, kLongestPause);
  Attempt attempt = connect_to(options_.host, options_.port);
  if (!attempt.socket) {
    problem_ = attempt.problem;
    return;
  }
  socket_ = std::move(attempt.socket);
  poller_.watch(socket_.get(), POLLOUT, [this] { connected_or_not(); });
}

void Client::connected_or_not() {
  poller_.forget(socket_.get());
  if (const int error = error_of(socket_.get()); error != 0) {
    problem_ = std::strerror(error);
    socket_.close();
    return;
  }
  heard_ = Clock::now();
  connection_ = std::make_unique<Connection>(
      poller_, std::move(socket_), [this](const Message& message) { receive(message); },
      [this](const std::string& why) { lose(why); });
  send(options_.hello, heard_);
}

void Client::receive(const Message& message) {
  heard_ = Clock::now();
  if (const auto* welcome = std::get_if<Welcome>(&message)) {
    options_.timeout = std::chrono::milliseconds(welcome->timeout_ms);
  } else if (!std::holds_alternative<Beat>(message)) {
    messages_.push_back(message);
  }
}

void Client::send(const Message& message, Time now) {
  if (!connection_) return;
  spoken_ = now;
  connection_->send(message);
}

void Client::lose(const std::string& why) {
  if (!lost_)
    lost_ = fmt::format("expected node 0 ({}:{}) to stay, lost it: {}", options_.host,
                        options_.port, why);
}

std::vector<Message> Client::take_messages() { return std::exchange(messages_, {}); }

void Client::tick(Time now) {
  if (lost_) return;
  if (connection_) {
    if (now >= heard_ + options_.timeout)
      return lose(fmt::format("nothing heard for {:g} s", seconds(options_.timeout)));
    if (now >= spoken_ + options_.timeout / kBeatsPerTimeout) send(Beat{}, now);
    return;
  }
  if (options_.start_timeout != Clock::duration::max() &&
      now >= started_ + options_.start_timeout) {
    lost_ = fmt::format("expected node 0 at {}:{} within {:g} s, got: {}", options_.host,
                        options_.port, seconds(options_.start_timeout), problem_);
  } else if (!socket_ && now >= next_try_) {
    try_to_connect(now);
  }
}

Time Client::deadline() const {
  if (lost_) return Time::max();
  if (connection_)
    return std::min(heard_ + options_.timeout, spoken_ + options_.timeout / kBeatsPerTimeout);
  const Time end = options_.start_timeout == Clock::duration::max()
                       ? Time::max()
                       : started_ + options_.start_timeout;
  return socket_ ? end : std::min(end, next_try_);
}

}  // namespace qianli::launch
