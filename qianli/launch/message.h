// What the launchers of a job's nodes say to each other: one line of ASCII each, a word that names
// the message and then its fields, separated by single spaces. Texts are percent-encoded ("-"
// stands for an empty one), numbers decimal. `Hello` carries the version of all of it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>

namespace qianli::launch {

constexpr int kProtocolVersion = 1;
constexpr size_t kMostLine = 16 << 10;  // bytes, the line feed included
constexpr size_t kMostText = 4 << 10;   // bytes of a text; longer ones are cut when they are sent
constexpr int kMostNodes = 1 << 16;
constexpr int kMostProcesses = 4096;  // per node

// Node to coordinator: first of all.
struct Hello {
  int version = kProtocolVersion;
  std::string job;
  int nodes = 1;
  int processes = 1;   // on this node
  int node_rank = -1;  // -1: by order of arrival
  std::string host;
};
// Coordinator to node: registered; what was heard of neither side for so long is lost.
struct Welcome {
  int timeout_ms = 0;
};
// Coordinator to node: start the ranks [first_rank, first_rank + processes).
struct Start {
  int attempt = 0;
  int node_rank = 0;
  int nodes = 1;
  int first_rank = 0;
  int world_size = 1;
  std::string master_address;
  int master_port = 0;
};
// Node to coordinator: the first of its ranks in this attempt that ended with another code than 0.
struct Failed {
  int rank = 0;
  int code = 0;      // 128 + n for a signal
  std::string text;  // a sentence, then the last lines of the rank
};
// Node to coordinator: no process of this attempt is left here.
struct Ended {};
// Coordinator to node: end the ranks. Gentle: they are ending by themselves, give them the time.
struct Stop {
  bool gentle = false;
  std::string text;  // why; may be empty
};
// Both ways: the user sent a signal; pass it on to the ranks.
struct Signal {
  int number = 0;
};
// Coordinator to node: the job is over, or never was.
struct Exit {
  int code = 0;
  std::string text;  // may be empty
};
// Both ways: still here.
struct Beat {};

using Message = std::variant<Hello, Welcome, Start, Failed, Ended, Stop, Signal, Exit, Beat>;

// With its line feed.
std::string encode(const Message& message);
// `line` without its line feed. Throws DataError with what is wrong.
Message decode(std::string_view line);

}  // namespace qianli::launch
