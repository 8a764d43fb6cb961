// This rank among all ranks of the job, and the place where groups are made.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

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

class World {
 public:
  World();  // of one rank
  // Meets the other ranks. Throws LostRankError where they do not come within the deadline.
  static World connect(const Rendezvous& rendezvous);

  int64_t rank() const;
  int64_t size() const;

  // The group of `ranks` (in the world), of which this rank is one: all of them call this, each
  // group under a name of its own, in the same order. Throws LostRankError where one does not.
  Group group(const std::vector<int64_t>& ranks, const std::string& name,
              Patience patience = Patience::kDeadline) const;
  Group all(const std::string& name = "all", Patience patience = Patience::kDeadline) const;

  // Rank 0 runs `action` while the others wait, as long as it is heard of; then they run it, too.
  void first_alone(const std::string& name, const std::function<void()>& action) const;

 private:
  friend class RankThreads;
  struct State;
  explicit World(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

}  // namespace qianli::dist
