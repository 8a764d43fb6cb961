// Keeps the nodes of a job together: gathers them, gives out ranks, hears of failures and lost
// nodes, ends and restarts all at once. It runs in the launcher of node 0 and knows neither sockets
// nor processes: messages and the time go in, messages come out.
//
//   gathering ──all are here──▶ running ──a rank failed, a node is lost, a signal──▶ stopping
//                                  ▲                                                    │
//                                  └────────── all nodes have ended, restarts left ─────┤
//                                                                   over ◀── otherwise ─┘
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "qianli/launch/message.h"

namespace qianli::launch {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

class Coordinator {
 public:
  struct Options {
    std::string job;
    int nodes = 1;
    int max_restarts = 0;
    std::string master_address;      // of node 0
    std::function<int()> free_port;  // there, for the ranks to meet at; another one each time
    Clock::duration start_timeout = std::chrono::minutes(10);  // for all nodes to come
    Clock::duration timeout = std::chrono::minutes(1);         // a silent node is lost
  };
  using Peer = int;
  static constexpr Peer kLocal = 0;  // the node this runs on: it is never lost
  struct Outgoing {
    Peer to = kLocal;
    Message message;
  };

  Coordinator(Options options, Time now);

  void receive(Peer from, const Message& message, Time now);
  // The connection is gone, or what came over it is no message.
  void closed(Peer peer, const std::string& why, Time now);
  // To be called when deadline() has passed.
  void tick(Time now);
  Time deadline() const;

  std::vector<Outgoing> take_outgoing();
  // Peers of whom nothing more is wanted. at_once: they are lost; the others read their last
  // message and close.
  struct Dismissed {
    Peer peer;
    bool at_once;
  };
  std::vector<Dismissed> take_dismissed();
  // What the user should read on node 0, a sentence each.
  std::vector<std::string> take_notices();
  bool over() const { return state_ == State::kOver; }

 private:
  enum class State { kGathering, kRunning, kStopping, kOver };
  struct Node {
    Hello hello;
    int rank = -1;
    bool ended = false;
    Time heard, spoken;
  };

  void enrol(Peer peer, const Hello& hello, Time now);
  std::string objection(const Hello& hello) const;
  void assign_ranks();
  void start(Time now);
  void fail(int code, bool may_restart, const std::string& text, Time now);
  void pass_on(Peer from, int signal, Time now);
  void settle(Time now);
  void finish(int code, const std::string& text);
  void lose(Peer peer, const std::string& why, Time now);
  std::string missing() const;
  std::string describe(const Node& node) const;
  void send(Peer to, const Message& message, Time now);
  void post(Peer to, const Message& message);
  void send_all(const Message& message, Time now);

  Options options_;
  State state_ = State::kGathering;
  Time started_;
  std::map<Peer, Node> nodes_;
  int attempt_ = 0;
  // The first thing that went wrong in this attempt.
  int code_ = 0;
  bool may_restart_ = false;
  std::string text_;
  std::optional<int> signal_;
  std::vector<Outgoing> outgoing_;
  std::vector<Dismissed> dismissed_;
  std::vector<std::string> notices_;
};

}  // namespace qianli::launch
