#include "qianli/launch/coordinator.h"

#include <fmt/core.h>
#include <signal.h>

#include <algorithm>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::launch {
namespace {

constexpr int kBeatsPerTimeout = 4;
constexpr int kUnavailable = static_cast<int>(ExitCode::kUnavailable);
constexpr int kUsage = static_cast<int>(ExitCode::kUsage);
constexpr int kStopped = static_cast<int>(ExitCode::kStopped);

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

Coordinator::Coordinator(Options options, Time now) : options_(std::move(options)), started_(now) {}

void Coordinator::receive(Peer from, const Message& message, Time now) {
  const auto found = nodes_.find(from);
  if (const auto* hello = std::get_if<Hello>(&message); hello && found == nodes_.end())
    return enrol(from, *hello, now);
  if (found == nodes_.end()) return closed(from, "it spoke before its hello", now);
  Node& node = found->second;
  node.heard = now;
  if (const auto* failed = std::get_if<Failed>(&message)) {
    if (state_ == State::kRunning)
      fail(failed->code, /*may_restart=*/failed->code != kStopped, failed->text, now);
  } else if (std::holds_alternative<Ended>(message)) {
    node.ended = state_ == State::kRunning || state_ == State::kStopping;
    settle(now);
  } else if (const auto* signal = std::get_if<Signal>(&message)) {
    pass_on(from, signal->number, now);
  } else if (!std::holds_alternative<Beat>(message)) {
    lose(from, "it sent a message that only node 0 sends", now);
  }
}

void Coordinator::closed(Peer peer, const std::string& why, Time now) {
  if (nodes_.contains(peer)) return lose(peer, why, now);
  dismissed_.push_back({peer, /*at_once=*/true});
}

// Empty: welcome.
std::string Coordinator::objection(const Hello& hello) const {
  if (hello.version != kProtocolVersion)
    return fmt::format("expected a launcher of protocol version {}, got {}", kProtocolVersion,
                       hello.version);
  if (hello.job != options_.job)
    return fmt::format("expected a node of job '{}', got one of '{}'", options_.job, hello.job);
  if (hello.nodes != options_.nodes)
    return fmt::format("expected --nnodes {} as on node 0, got {}", options_.nodes, hello.nodes);
  if (hello.node_rank >= options_.nodes)
    return fmt::format("expected a node rank below {}, got {}", options_.nodes, hello.node_rank);
  if (state_ != State::kGathering) return "expected to come before the job started";
  if (hello.node_rank < 0) return {};
  for (const auto& [peer, node] : nodes_) {
    if (node.hello.node_rank == hello.node_rank || (peer == kLocal && hello.node_rank == 0))
      return fmt::format("expected one node of rank {}, got a second one after {}", hello.node_rank,
                         node.hello.host);
  }
  return {};
}

void Coordinator::enrol(Peer peer, const Hello& hello, Time now) {
  if (const std::string problem = objection(hello); !problem.empty()) {
    notices_.push_back(fmt::format("refused {}: {}", hello.host, problem));
    post(peer, Exit{kUsage, problem});
    dismissed_.push_back({peer, /*at_once=*/false});
    return;
  }
  nodes_[peer] = {.hello = hello, .heard = now, .spoken = now};
  const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(options_.timeout);
  send(peer, Welcome{static_cast<int>(timeout.count())}, now);
  const int here = static_cast<int>(nodes_.size());
  if (options_.nodes > 1) {
    notices_.push_back(fmt::format("{} of {} nodes: {} with {} process{}", here, options_.nodes,
                                   hello.host, hello.processes, hello.processes == 1 ? "" : "es"));
  }
  if (here < options_.nodes) return;
  assign_ranks();
  start(now);
}

// Node 0 is here; the others take the rank they asked for, or the next free one in the order in
// which they came (peers are numbered so).
void Coordinator::assign_ranks() {
  std::vector<bool> taken(static_cast<size_t>(options_.nodes), false);
  for (auto& [peer, node] : nodes_) {
    node.rank = peer == kLocal ? 0 : node.hello.node_rank;
    if (node.rank >= 0) taken[static_cast<size_t>(node.rank)] = true;
  }
  for (auto& [peer, node] : nodes_) {
    if (node.rank >= 0) continue;
    const auto free = std::ranges::find(taken, false);
    *free = true;
    node.rank = static_cast<int>(free - taken.begin());
  }
}

void Coordinator::start(Time now) {
  std::vector<std::pair<int, Peer>> order;
  Start start{.attempt = attempt_, .nodes = options_.nodes, .world_size = 0};
  for (const auto& [peer, node] : nodes_) {
    order.emplace_back(node.rank, peer);
    start.world_size += node.hello.processes;
  }
  std::ranges::sort(order);
  start.master_address = options_.master_address;
  start.master_port = options_.free_port();
  code_ = 0;
  text_.clear();
  state_ = State::kRunning;
  for (const auto& [rank, peer] : order) {
    start.node_rank = rank;
    nodes_[peer].ended = false;
    send(peer, start, now);
    start.first_rank += nodes_[peer].hello.processes;
  }
}

void Coordinator::fail(int code, bool may_restart, const std::string& text, Time now) {
  if (state_ == State::kRunning) {
    code_ = code;
    text_ = text;
    may_restart_ = may_restart;
    state_ = State::kStopping;
    send_all(Stop{.gentle = code == kStopped || signal_.has_value(), .text = text}, now);
  } else if (!may_restart) {
    may_restart_ = false;
    send_all(Stop{.gentle = false, .text = text}, now);
  }
  settle(now);
}

// Every node passes a signal on to its own ranks before it tells of it.
void Coordinator::pass_on(Peer from, int signal, Time now) {
  if (state_ == State::kGathering) return finish(128 + signal, "");
  if (state_ == State::kOver) return;
  if (!signal_) signal_ = signal;
  for (const auto& [peer, node] : nodes_) {
    if (peer != from) send(peer, Signal{signal}, now);
  }
}

void Coordinator::lose(Peer peer, const std::string& why, Time now) {
  const Node node = nodes_[peer];
  nodes_.erase(peer);
  dismissed_.push_back({peer, /*at_once=*/true});
  if (state_ == State::kGathering) {
    notices_.push_back(fmt::format("{} left: {}", node.hello.host, why));
  } else if (state_ != State::kOver) {
    fail(kUnavailable, /*may_restart=*/false,
         fmt::format("expected all {} nodes to stay, lost {}: {}", options_.nodes, describe(node),
                     why),
         now);
  }
}

// Goes on when the last node has ended its processes.
void Coordinator::settle(Time now) {
  if (state_ != State::kRunning && state_ != State::kStopping) return;
  for (const auto& [peer, node] : nodes_)
    if (!node.ended) return;
  if (code_ == 0) return finish(0, "");
  if (!may_restart_ || signal_ || attempt_ >= options_.max_restarts) return finish(code_, "");
  ++attempt_;
  notices_.push_back(fmt::format("restart {} of {}", attempt_, options_.max_restarts));
  start(now);
}

void Coordinator::finish(int code, const std::string& text) {
  state_ = State::kOver;
  for (const auto& [peer, node] : nodes_) {
    post(peer, Exit{code, text});
    dismissed_.push_back({peer, /*at_once=*/false});
  }
}

std::string Coordinator::describe(const Node& node) const {
  return node.rank < 0 ? node.hello.host : fmt::format("node {} ({})", node.rank, node.hello.host);
}

// "node 1, node 3", or how many where nodes do not say who they are.
std::string Coordinator::missing() const {
  std::vector<bool> known(static_cast<size_t>(options_.nodes), false);
  known[0] = true;
  bool all_named = true;
  for (const auto& [peer, node] : nodes_) {
    if (node.hello.node_rank >= 0) known[static_cast<size_t>(node.hello.node_rank)] = true;
    all_named = all_named && (peer == kLocal || node.hello.node_rank >= 0);
  }
  const auto count = static_cast<size_t>(options_.nodes) - nodes_.size();
  if (!all_named || nodes_.size() == 1) return fmt::format("{} more", count);
  constexpr size_t kNamed = 20;
  std::vector<std::string> names;
  for (size_t i = 0; i < known.size(); ++i) {
    if (known[i]) continue;
    if (names.size() < kNamed) names.push_back(fmt::format("node {}", i));
  }
  return join(names, ", ") + (count > kNamed ? ", …" : "");
}

Time Coordinator::deadline() const {
  if (state_ == State::kOver) return Time::max();
  Time next = state_ == State::kGathering && options_.start_timeout != Clock::duration::max()
                  ? started_ + options_.start_timeout
                  : Time::max();
  for (const auto& [peer, node] : nodes_) {
    if (peer == kLocal) continue;
    next = std::min(
        {next, node.heard + options_.timeout, node.spoken + options_.timeout / kBeatsPerTimeout});
  }
  return next;
}

void Coordinator::tick(Time now) {
  if (state_ == State::kGathering && options_.start_timeout != Clock::duration::max() &&
      now >= started_ + options_.start_timeout) {
    std::vector<std::string> here;
    for (const auto& [peer, node] : nodes_) here.push_back(node.hello.host);
    return finish(
        kUnavailable,
        fmt::format("expected {} nodes within {:g} s, got {} ({}); missing: {}", options_.nodes,
                    seconds(options_.start_timeout), nodes_.size(), join(here, ", "), missing()));
  }
  std::vector<Peer> silent;
  for (auto& [peer, node] : nodes_) {
    if (peer == kLocal || state_ == State::kOver) continue;
    if (now >= node.heard + options_.timeout) {
      silent.push_back(peer);
    } else if (now >= node.spoken + options_.timeout / kBeatsPerTimeout) {
      send(peer, Beat{}, now);
    }
  }
  for (const Peer peer : silent)
    lose(peer, fmt::format("nothing heard for {:g} s", seconds(options_.timeout)), now);
}

void Coordinator::send(Peer to, const Message& message, Time now) {
  nodes_[to].spoken = now;
  post(to, message);
}

void Coordinator::post(Peer to, const Message& message) {
  Outgoing& last = outgoing_.emplace_back();
  last.to = to;
  last.message = message;
}

void Coordinator::send_all(const Message& message, Time now) {
  for (const auto& [peer, node] : nodes_) send(peer, message, now);
}

std::vector<Coordinator::Outgoing> Coordinator::take_outgoing() {
  return std::exchange(outgoing_, {});
}
std::vector<Coordinator::Dismissed> Coordinator::take_dismissed() {
  return std::exchange(dismissed_, {});
}
std::vector<std::string> Coordinator::take_notices() { return std::exchange(notices_, {}); }

}  // namespace qianli::launch
