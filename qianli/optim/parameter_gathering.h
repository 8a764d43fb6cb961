// When the parameters of a unit are whole on this rank, where every rank updates its slices only.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "qianli/nn/parameter_set.h"
#include "qianli/optim/replicas.h"

namespace qianli::optim {

struct GatheringOptions {
  bool overlap = true;  // slices travel while ranks compute, and are waited for where they are used
  int64_t ahead = 1;    // how many of those to be used next are on their way
};

// All replicas make the same calls in the same order.
class ParameterGathering {
 public:
  virtual ~ParameterGathering() = default;
  // The uses that come now are in the order of those that came after the last call with this
  // number.
  virtual void begin(uint64_t /*number*/) {}
  // Until let_go() the units are whole.
  virtual void use(const nn::Units& units) = 0;
  virtual void let_go(const nn::Units& units) = 0;
  // Every rank has new values in its slices; none of the units is in use.
  virtual void updated() = 0;
  // What is whole between its uses is so now.
  virtual void complete() = 0;
  virtual int64_t peak_unit_bytes() const { return 0; }
};

// Where values are kept whole, buckets are gathered after each update; where slices of them are
// kept, a unit is gathered for each use. `replicas`: of each region.
std::unique_ptr<ParameterGathering> make_gathering(nn::ParameterSet& parameters,
                                                   std::vector<Replicas> replicas,
                                                   GatheringOptions options);

}  // namespace qianli::optim
