// This rank among all ranks of the job, and the place where groups are made.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "qianli/config/communicators.h"
#include "qianli/dist/group.h"

namespace qianli::dist {

struct Rendezvous {
  int64_t rank = 0;
  int64_t size = 1;
  std::string host = "127.0.0.1";  // of rank 0, which listens there
  uint16_t port = 0;
  bool serve = true;    // false: the launcher listens there already
  int64_t attempt = 0;  // how often the job was started again: what it said before is not read
  // For connecting, and for each collective.
  std::chrono::milliseconds deadline = std::chrono::minutes(10);
};

class DeviceTransport;

// How tensors of devices travel (device_communication.h), and what the communicators of each group
// are asked to be like, by its name. Without a transport all tensors are the host's.
struct Devices {
  std::shared_ptr<const DeviceTransport> transport;
  std::map<std::string, config::CommunicatorOptions> options;
};

// Groups of hosts have no communicator between devices, whose memory that would take.
enum class Carries { kAll, kHostTensors };

class World {
 public:
  World();  // of one rank
  // Meets the other ranks. Throws LostRankError where they do not come within the deadline.
  static World connect(const Rendezvous& rendezvous, Devices devices = {});

  int64_t rank() const;
  int64_t size() const;

  // The group of `ranks` (in the world), of which this rank is one: all of them call this, each
  // group under a name of its own, in the same order. Throws LostRankError where one does not.
  Group group(const std::vector<int64_t>& ranks, const std::string& name,
              Patience patience = Patience::kDeadline, Carries carries = Carries::kAll) const;
  Group all(const std::string& name = "all", Patience patience = Patience::kDeadline,
            Carries carries = Carries::kAll) const;

  // Of the groups of several ranks for all tensors that this rank has made, in alphabetical order.
  std::vector<std::string> group_names() const;

  // Rank 0 runs `action` while the others wait, as long as it is heard of; then they run it, too.
  void first_alone(const std::string& name, const std::function<void()>& action) const;

 private:
  friend class RankThreads;
  struct State;
  explicit World(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace qianli::dist
