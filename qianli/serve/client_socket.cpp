#include "qianli/serve/client_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <charconv>
#include <filesystem>

namespace qianli::serve {
namespace {

bool is_peer(int descriptor, const std::string& address, int port) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  if (::getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return false;
  char host[NI_MAXHOST], service[NI_MAXSERV];
  const int error = ::getnameinfo(reinterpret_cast<sockaddr*>(&peer), size, host, sizeof(host),
                                  service, sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
  return error == 0 && address == host && std::to_string(port) == service;
}

}  // namespace

ClientSocket ClientSocket::of(const std::string& address, int port) {
  ClientSocket found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const std::string name = entry.path().filename().string();
    int descriptor = -1;
    std::from_chars(name.data(), name.data() + name.size(), descriptor);
    if (descriptor >= 0 && is_peer(descriptor, address, port)) found.descriptor_ = descriptor;
  }
  return found;
}

bool ClientSocket::has_left() const {
  if (descriptor_ < 0) return false;
  pollfd state{.fd = descriptor_, .events = POLLRDHUP, .revents = 0};
  return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace qianli::serve
