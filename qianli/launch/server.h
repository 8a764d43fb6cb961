// The coordinator's door: accepts the other nodes' launchers and carries messages between them and
// the coordinator.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "qianli/launch/connection.h"
#include "qianli/launch/coordinator.h"

namespace qianli::launch {

class Server {
 public:
  // `listener` may be invalid: a job of one node.
  Server(Poller& poller, Descriptor listener, Coordinator& coordinator);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Sends what the coordinator has to say; gives what is meant for the node it runs on.
  std::vector<Message> exchange(Time now);
  // Disconnects strangers who say nothing.
  void tick(Time now);
  Time deadline() const;
  bool empty() const { return peers_.empty(); }

 private:
  struct Peer {
    std::unique_ptr<Connection> connection;
    Time leave_at = Time::max();  // a stranger, or one that is dismissed and still reads
    bool dismissed = false;
  };
  void accept_one();

  Poller& poller_;
  Descriptor listener_;
  Coordinator& coordinator_;
  std::map<Coordinator::Peer, Peer> peers_;
  Coordinator::Peer next_ = Coordinator::kLocal + 1;
};

}  // namespace qianli::launch
