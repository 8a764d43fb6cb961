// Whether the client of a request is still there: the HTTP library does not tell while an answer is
// being computed.
#pragma once

#include <string>

namespace qianli::serve {

class ClientSocket {
 public:
  // The connection with this peer, found among the process's own by address and port.
  static ClientSocket of(const std::string& address, int port);
  // It closed its side. False where the connection was not found.
  bool has_left() const;

 private:
  int descriptor_ = -1;
};

}  // namespace qianli::serve
