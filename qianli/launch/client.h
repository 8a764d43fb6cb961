// A node's line to the coordinator in the launcher of node 0.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/launch/connection.h"
#include "qianli/launch/coordinator.h"

namespace qianli::launch {

class Client {
 public:
  struct Options {
    std::string host;
    int port = 0;
    Hello hello;
    Clock::duration start_timeout, timeout;
  };

  Client(Poller& poller, Options options, Time now);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(const Message& message, Time now);
  std::vector<Message> take_messages();
  bool connected() const { return connection_ != nullptr; }
  // A sentence, once node 0 could not be reached or is lost.
  const std::optional<std::string>& lost() const { return lost_; }
  // Tries again, shows that it is still here, notices that node 0 is not.
  void tick(Time now);
  Time deadline() const;

 private:
  void try_to_connect(Time now);
  void connected_or_not();
  void receive(const Message& message);
  void lose(const std::string& why);

  Poller& poller_;
  Options options_;
  Time started_, next_try_, heard_, spoken_;
  Clock::duration pause_;
  Descriptor socket_;  // while it connects
  std::string problem_ = "no answer";
  std::unique_ptr<Connection> connection_;
  std::vector<Message> messages_;
  std::optional<std::string> lost_;
};

}  // namespace qianli::launch
