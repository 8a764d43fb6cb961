// Runs one stage's part of a pipeline schedule: a list of instructions (plan/schedule.h), of which
// it knows what each does and not which schedule they are of. A stage alone is serial training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "qianli/dist/group.h"
#include "qianli/plan/schedule.h"
#include "qianli/train/stage_links.h"

namespace qianli::train {

// What the instructions compute. It is the same for all stages; each asks for its own chunks.
struct PipelineWork {
  struct Unit {
    int32_t chunk = 0, microbatch = 0, slice = 0;
    bool again = false;      // recomputed: the forward pass was made before, without gradients
    bool completes = false;  // no other unit's backward pass adds to the chunk's gradients after it
  };
  // The output of a chunk from that of the chunk before (empty for the first of the model), with a
  // graph where gradients are recorded. The last chunk gives scalars, whose gradient is 1.
  std::function<Tensors(const Unit& unit, const Tensors& input)> forward;
  // The unit's backward pass has ended, with the gradients of weights or, where these are split
  // off, first without them and then once more with them. Not called where nothing goes back.
  std::function<void(const Unit& unit)> went_back;
  // All gradients of the chunk's parameters are there.
  std::function<void(int32_t chunk)> gradients_complete;
  // Slices of microbatches with equal numbers have tensors of equal shapes on every edge.
  std::function<int64_t(int32_t microbatch, int32_t slice)> kind;
  // The unit's backward pass is done; slices of a microbatch come in reverse.
  std::function<void(const Unit& unit)> released;
};

class Pipeline {
 public:
  // `stages` in order; nothing else uses the group.
  Pipeline(dist::Group stages, at::Device device);

  // All stages call it with the same schedule, which must pass plan::prove.
  // Gradients of inputs travel through autograd, those of parameters go where ops put them.
  void run(const plan::Schedule& schedule, const PipelineWork& work);

  // The most units whose activations were kept at once, in the last run.
  int64_t peak_units() const { return peak_units_; }

 private:
  StageLinks links_;
  at::Device device_;
  int64_t peak_units_ = 0;
};

}  // namespace qianli::train
