// One stage's part of a proof.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "qianli/plan/schedule.h"

namespace qianli::plan {

// A message as both its ends must see it.
struct Parcel {
  bool activation;
  int32_t from_chunk, to_chunk, microbatch, slice;
  bool operator==(const Parcel&) const = default;
};

struct StageProof {
  std::vector<std::string> problems;  // the first few
  int64_t peak_activations = 0, peak_inputs = 0, peak_waiting = 0;
  // In the program's order, by (from, to).
  std::map<std::pair<int32_t, int32_t>, std::vector<Parcel>> sent, received;
};

// What can be said of a stage's program by itself. All that instructions name must exist.
StageProof prove_stage(const Schedule& schedule, const Places& places, int32_t stage);

inline constexpr size_t kMaxProblems = 24;

}  // namespace qianli::plan
