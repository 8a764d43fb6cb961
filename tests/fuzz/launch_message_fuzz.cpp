// Lines from strangers at the launcher's port: read as messages, and handed to a coordinator as if
// several nodes had sent them; the first byte of a line says which one.
#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/launch/coordinator.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  using namespace qianli::launch;
  Time now;
  int port = 15000;
  Coordinator coordinator({.job = "job",
                           .nodes = 3,
                           .max_restarts = 2,
                           .master_address = "head",
                           .free_port = [&] { return port = port % 65535 + 1; }},
                          now);
  coordinator.receive(Coordinator::kLocal, Hello{.job = "job", .nodes = 3, .host = "a"}, now);
  for (const std::string& line : split({reinterpret_cast<const char*>(data), size}, '\n')) {
    if (line.empty()) continue;
    const int peer = static_cast<unsigned char>(line[0]) % 6;
    now += std::chrono::seconds(1);
    coordinator.tick(now);
    try {
      const Message message = decode(std::string_view(line).substr(1));
      const std::string again = encode(message);
      fuzz::require(again.size() < kMostLine, "what is sent is short enough to be read");
      fuzz::require(encode(decode(std::string_view(again).substr(0, again.size() - 1))) == again,
                    "a message comes back as it was");
      coordinator.receive(peer, message, now);
    } catch (const DataError&) {
      if (peer != Coordinator::kLocal) coordinator.closed(peer, "not a message", now);
    }
    for (const auto& [to, message] : coordinator.take_outgoing()) {
      if (const auto* start = std::get_if<Start>(&message))
        fuzz::require(start->first_rank < start->world_size, "every node has a place");
    }
    coordinator.take_dismissed();
    coordinator.take_notices();
  }
  return 0;
}
