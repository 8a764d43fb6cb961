#include "qianli/launch/server.h"

#include <poll.h>

#include <algorithm>
#include <limits>

namespace qianli::launch {
namespace {

constexpr auto kPatience = std::chrono::seconds(10);  // for a hello, and for a last message
constexpr size_t kMostPeers = kMostNodes + 256;

}  // namespace

Server::Server(Poller& poller, Descriptor listener, Coordinator& coordinator)
    : poller_(poller), listener_(std::move(listener)), coordinator_(coordinator) {
  if (listener_) poller_.watch(listener_.get(), POLLIN, [this] { accept_one(); });
}

Server::~Server() {
  if (listener_) poller_.forget(listener_.get());
}

void Server::accept_one() {
  Descriptor socket = accept_from(listener_.get());
  if (!socket || peers_.size() >= kMostPeers || next_ == std::numeric_limits<int>::max()) return;
  const Coordinator::Peer id = next_++;
  Peer& peer = peers_[id];
  peer.leave_at = Clock::now() + kPatience;
  peer.connection = std::make_unique<Connection>(
      poller_, std::move(socket),
      [this, id](const Message& message) {
        Peer& sender = peers_.at(id);
        if (sender.dismissed) return;
        sender.leave_at = Time::max();
        coordinator_.receive(id, message, Clock::now());
      },
      [this, id](const std::string& why) { coordinator_.closed(id, why, Clock::now()); });
}

std::vector<Message> Server::exchange(Time now) {
  std::vector<Message> local;
  for (auto& [to, message] : coordinator_.take_outgoing()) {
    if (to == Coordinator::kLocal) {
      local.push_back(std::move(message));
    } else if (const auto peer = peers_.find(to); peer != peers_.end()) {
      peer->second.connection->send(message);
    }
  }
  for (const auto& [id, at_once] : coordinator_.take_dismissed()) {
    const auto peer = peers_.find(id);
    if (peer == peers_.end()) continue;
    if (at_once) peer->second.connection->close();
    if (peer->second.dismissed) continue;
    peer->second.dismissed = true;
    // It closes when it has read its last message. Closing first could take that from it: what it
    // has sent meanwhile would answer with a reset.
    peer->second.leave_at = now + kPatience;
  }
  std::erase_if(peers_, [](const auto& entry) { return !entry.second.connection->is_open(); });
  return local;
}

void Server::tick(Time now) {
  std::vector<Coordinator::Peer> leaving;
  for (const auto& [id, peer] : peers_)
    if (now >= peer.leave_at) leaving.push_back(id);
  for (const auto id : leaving) peers_.erase(id);
}

Time Server::deadline() const {
  Time next = Time::max();
  for (const auto& [id, peer] : peers_) next = std::min(next, peer.leave_at);
  return next;
}

}  // namespace qianli::launch
