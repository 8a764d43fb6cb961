// Pipeline schedules as data: for each stage the list of what it does, in order. The lists are all
// that an executor needs; it knows no schedule by name. Terms: a stage is a rank of the pipeline, a
// chunk is a part of the model that a stage holds, a unit is one microbatch (or one slice of its
// sequence) in one chunk.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qianli::plan {

enum class Op : uint8_t {
  // Compute. Their unit is (chunk, microbatch, slice).
  kForward,
  kRecompute,   // the forward again, from the input that a checkpointed forward kept
  kBackward,    // gradients of input and weights
  kInputGrad,   // of the input alone; what the weights' gradients need stays
  kWeightGrad,  // of the weights, after kInputGrad; frees the unit
  // Messages between the unit and the same unit in the chunk `peer_chunk` of stage `peer`.
  kSendActivation,     // the unit's output
  kReceiveActivation,  // the unit's input
  kSendGradient,       // of the unit's input
  kReceiveGradient,    // of the unit's output
  // The same on one stage: from `chunk` to `peer_chunk`, nothing travels.
  kHandOverActivation,
  kHandOverGradient,
  // Collectives over the data-parallel group begin here. Their unit is the chunk.
  kReduceGradients,
  kGatherParameters,
};

struct Instruction {
  Op op = Op::kForward;
  bool checkpoint = false;  // a forward that keeps only its input; kRecompute comes before backward
  // A forward that may run as one with the instruction after it, the kBackward of another unit
  // (overlap of one's communication with the other's computation).
  bool paired = false;
  int32_t chunk = 0, microbatch = 0, slice = 0;
  int32_t peer = -1, peer_chunk = -1;

  bool operator==(const Instruction&) const = default;
};

bool is_compute(Op op);
bool is_message(Op op);  // sends and receives
bool is_send(Op op);

// "F0.3" chunk 0, microbatch 3; B backward, b input gradient, W weight gradient, R recompute;
// "F0.3/1" slice 1; "send F0.3 to 1.0" to stage 1, chunk 0.
std::string name(const Instruction& instruction);

using Program = std::vector<Instruction>;

struct Place {
  int32_t stage = 0, chunk = 0;
  bool operator==(const Place&) const = default;
};
// The chunks of all stages in the order of the model's layers. The first holds the embedding, the
// last the output layer and the loss.
using Flow = std::vector<Place>;

Flow ring_flow(int64_t stages, int64_t chunks);  // chunk 0 of all stages, chunk 1 of all stages, …
Flow v_flow(int64_t stages);                     // down the stages and back up: DualPipe-V

// A run of neighbouring sends and receives is one exchange: it may be done one message after the
// other, each blocking, or all at once as a batch. Receives may be posted at once and waited for
// where the unit is used. In every pair of stages, messages are received in the order they are
// sent, so one communicator is enough.
struct Schedule {
  int32_t stages = 1, chunks = 1, microbatches = 1, slices = 1;
  bool forward_only = false;  // evaluation: no backward, nothing is kept
  Flow flow;
  std::vector<Program> programs;  // [stage]

  int64_t units() const { return int64_t{microbatches} * slices; }  // of a chunk
};

// Where each chunk stands in a schedule's flow.
class Places {
 public:
  explicit Places(const Schedule& schedule);
  int32_t of(int32_t stage, int32_t chunk) const {
    return places_[static_cast<size_t>(stage * chunks_ + chunk)];
  }

 private:
  int32_t chunks_;
  std::vector<int32_t> places_;
};

enum class ScheduleKind {
  kGPipe,        // all forwards, then all backwards
  k1F1B,         // PipeDream-flush
  kInterleaved,  // 1F1B over several chunks a stage, a ring (virtual pipeline)
  kZeroBubble,   // ZB-H1: 1F1B whose weight gradients fill the bubble, at 1F1B's peak
  kNanoPipe,     // interleaved; late stages put off their first weight gradients to the end
  kDualPipeV,    // two chunks a stage, the model folded to a V
  kSeq1F1B,      // 1F1B over slices of the sequence
};

enum class Recompute {
  kNone,
  kFull,       // every forward keeps its input; recomputed right before its backward, where
               // possible while the gradient is still on the way
  kInAdvance,  // the same, but for the last chunk of the model, which waits for no gradient
  kInBubble,   // only as much as fits into the bubble
};

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::k1F1B;
  int64_t stages = 1;
  int64_t microbatches = 1;
  int64_t chunks = 1;      // of a stage; kDualPipeV has 2
  int64_t group_size = 0;  // interleaved: microbatches in a row of one chunk; 0: stages
  int64_t slices = 1;      // kSeq1F1B
  Recompute recompute = Recompute::kNone;
  bool forward_only = false;         // the forwards alone, in the same order: evaluation
  bool merge_pairs = false;          // kDualPipeV: mark forwards and backwards to run as one
  bool detach_weight_grads = false;  // kDualPipeV: split the last backwards
  bool align_collectives = true;     // interleaved: all stages begin a chunk's at the same time
};

// Families by the name a command line gives them: gpipe, 1f1b, interleaved, zb-h1, nanopipe,
// dualpipev, seq1f1b.
struct NamedSchedule {
  ScheduleKind kind;
  const char* name;
  const char* title;
};
const std::vector<NamedSchedule>& schedule_names();
// Throws ConfigError with a suggestion.
ScheduleKind schedule_kind(const std::string& name);

// What is wrong with the options, a sentence each; empty: make_schedule works.
std::vector<std::string> schedule_problems(const ScheduleOptions& options);

// Throws ConfigError that names everything wrong with the options at once.
Schedule make_schedule(const ScheduleOptions& options);

}  // namespace qianli::plan
