#include <arpa/inet.h>
#include <errno.h>
#include <fmt/core.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/random.h"
#include "qianli/launch/connection.h"

namespace qianli::launch {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

// Empty, and `problem` set, where the name is unknown.
std::vector<Address> resolve(const std::string& host, int port, std::string& problem) {
  addrinfo wanted{};
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  addrinfo* first = nullptr;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &first);
  if (error != 0) {
    problem = ::gai_strerror(error);
    return {};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all(first, &::freeaddrinfo);
  std::vector<Address> addresses;
  for (const addrinfo* info = first; info != nullptr; info = info->ai_next) {
    Address address;
    if (info->ai_addrlen > sizeof address.storage) continue;
    std::memcpy(&address.storage, info->ai_addr, info->ai_addrlen);
    address.size = info->ai_addrlen;
    addresses.push_back(address);
  }
  return addresses;
}

bool is_loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  }
  return address->sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

bool same_host(const sockaddr* a, const sockaddr* b) {
  if (a->sa_family != b->sa_family) return false;
  if (a->sa_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(a)->sin_addr.s_addr ==
           reinterpret_cast<const sockaddr_in*>(b)->sin_addr.s_addr;
  }
  return a->sa_family == AF_INET6 &&
         IN6_ARE_ADDR_EQUAL(&reinterpret_cast<const sockaddr_in6*>(a)->sin6_addr,
                            &reinterpret_cast<const sockaddr_in6*>(b)->sin6_addr);
}

// All addresses of this machine; IPv6 takes IPv4 along, where the machine has it at all.
std::vector<Address> any_address(int port) {
  Address both, v4;
  auto* six = reinterpret_cast<sockaddr_in6*>(&both.storage);
  six->sin6_family = AF_INET6;
  six->sin6_addr = in6addr_any;
  six->sin6_port = htons(static_cast<uint16_t>(port));
  both.size = sizeof *six;
  auto* four = reinterpret_cast<sockaddr_in*>(&v4.storage);
  four->sin_family = AF_INET;
  four->sin_addr.s_addr = htonl(INADDR_ANY);
  four->sin_port = htons(static_cast<uint16_t>(port));
  v4.size = sizeof *four;
  return {both, v4};
}

// The first of the addresses that this machine knows the family of. errno tells why there is none.
Descriptor bind_first(const std::vector<Address>& addresses) {
  for (const Address& address : addresses) {
    Descriptor socket(
        ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
    if (!socket) continue;
    const int on = 1, off = 0;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address.family() == AF_INET6)
      ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    constexpr int kBacklog = 1024;
    if (::bind(socket.get(), address.get(), address.size) == 0 &&
        ::listen(socket.get(), kBacklog) == 0)
      return socket;
    if (errno == EADDRINUSE) return Descriptor();
  }
  return Descriptor();
}

}  // namespace

Descriptor listen_at(const std::string& host, int port) {
  std::string problem;
  const auto addresses = resolve(host, port, problem);
  const bool loopback = !addresses.empty() && is_loopback(addresses.front().get());
  Descriptor listener = bind_first(loopback ? addresses : any_address(port));
  if (!listener && errno != EADDRINUSE) {
    throw ConfigError("launch", fmt::format("expected to listen at port {}, got: {}", port,
                                            std::strerror(errno)));
  }
  return listener;
}

Descriptor accept_from(int listener) {
  return Descriptor(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

Attempt connect_to(const std::string& host, int port) {
  Attempt attempt;
  for (const Address& address : resolve(host, port, attempt.problem)) {
    Descriptor socket(
        ::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP));
    if (socket &&
        (::connect(socket.get(), address.get(), address.size) == 0 || errno == EINPROGRESS)) {
      attempt.socket = std::move(socket);
      return attempt;
    }
    attempt.problem = std::strerror(errno);
  }
  return attempt;
}

int error_of(int socket) {
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

bool is_this_machine(const std::string& host) {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) == 0 && host == name) return true;
  std::string problem;
  const auto addresses = resolve(host, 0, problem);
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return false;
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> all(first, &::freeifaddrs);
  for (const Address& address : addresses) {
    if (is_loopback(address.get())) return true;
    for (const ifaddrs* own = first; own != nullptr; own = own->ifa_next)
      if (own->ifa_addr != nullptr && same_host(own->ifa_addr, address.get())) return true;
  }
  return false;
}

int free_port(int last) {
  constexpr int kFirst = 15000, kCount = 15000, kTries = 200;
  const auto seed = static_cast<uint64_t>(Clock::now().time_since_epoch().count()) ^
                    static_cast<uint64_t>(::getpid()) << 40;
  for (int i = 0; i < kTries; ++i) {
    const int port = kFirst + static_cast<int>((seed / 1000 + static_cast<uint64_t>(i) * 7919) %
                                               static_cast<uint64_t>(kCount));
    if (port != last && bind_first(any_address(port))) return port;
  }
  throw UnavailableError("launch", "expected a free port between 15000 and 29999, got none");
}

}  // namespace qianli::launch
