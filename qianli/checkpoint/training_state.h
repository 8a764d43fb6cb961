// Where a run stands, apart from its tensors.
#pragma once

#include <cstdint>
#include <string>

namespace qianli::checkpoint {

// Random numbers are functions of (seed, place), so the seed and the counts below are all there is
// to know about them.
struct TrainingState {
  int64_t step = 0;              // training steps done
  int64_t updates_done = 0;      // optimizer updates done (skipped steps do not count)
  int64_t consumed_samples = 0;  // sequences taken from the data, in the order of the run
  uint64_t seed = 0;
  std::string data_fingerprint;  // of the data set that consumed_samples counts in
  std::string config_yaml;       // the resolved configuration of the run

  bool operator==(const TrainingState&) const = default;
};

}  // namespace qianli::checkpoint
