// Lines over TCP between launchers, without waiting, with bounds on what is held.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "qianli/launch/descriptor.h"
#include "qianli/launch/message.h"
#include "qianli/launch/poller.h"

namespace qianli::launch {

class Connection {
 public:
  using OnMessage = std::function<void(const Message&)>;
  using OnClosed = std::function<void(const std::string& why)>;

  // `socket` is connected and does not block. on_closed is called at most once, and no message
  // after it. Neither may destroy the connection.
  Connection(Poller& poller, Descriptor socket, OnMessage on_message, OnClosed on_closed);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void send(const Message& message);
  bool is_open() const { return static_cast<bool>(socket_); }
  bool all_sent() const { return outgoing_.empty(); }
  void close();

 private:
  void ready();
  void read_some();
  void write_some();
  void fail(const std::string& why);

  Poller& poller_;
  Descriptor socket_;
  OnMessage on_message_;
  OnClosed on_closed_;
  std::string incoming_, outgoing_;
};

// A socket that listens at the port: on loopback only where `host` is a loopback address, else on
// all addresses. Invalid where the port is taken. Throws ConfigError where it cannot be had
// otherwise.
Descriptor listen_at(const std::string& host, int port);
// The next connection, or an invalid descriptor.
Descriptor accept_from(int listener);

// One attempt to connect. Finished when the socket is writable; then `error_of` is 0 or the reason.
struct Attempt {
  Descriptor socket;
  std::string problem;  // where there is no socket
};
Attempt connect_to(const std::string& host, int port);
int error_of(int socket);

// Whether `host` is this machine: loopback, its name, or an address of one of its interfaces.
bool is_this_machine(const std::string& host);
// A port at which nobody listens here, below those that systems give to clients; not `last`.
int free_port(int last);

}  // namespace qianli::launch
