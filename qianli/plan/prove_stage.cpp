#include "qianli/plan/prove_stage.h"

#include <fmt/format.h>

#include <algorithm>

namespace qianli::plan {
namespace {

// What has happened to a unit.
enum Fact : uint16_t {
  kInput = 1,        // is there
  kForwarded = 2,    // the forward is done
  kActivations = 4,  // what backward needs was kept, or made again
  kGradient = 8,     // of the output, is there
  kInputGradient = 16,
  kWeightGradient = 32,
  kSentOutput = 64,
  kSentGradient = 128,
};
constexpr uint16_t kAllFacts = 255;

const char* words(uint16_t fact) {
  switch (fact) {
    case kInput:
      return "its input";
    case kForwarded:
      return "its forward";
    case kActivations:
      return "its activations";
    case kGradient:
      return "the gradient of its output";
    case kInputGradient:
      return "the gradient of its input";
    case kWeightGradient:
      return "the gradient of its weights";
    case kSentOutput:
      return "sending its output";
    default:
      return "sending its gradient";
  }
}

// An instruction needs facts of its unit and makes others, each for the first time.
struct Rule {
  uint16_t needs, makes;
};

Rule rule_of(const Instruction& instruction) {
  switch (instruction.op) {
    case Op::kForward:
      return {kInput,
              static_cast<uint16_t>(kForwarded | (instruction.checkpoint ? 0 : kActivations))};
    case Op::kRecompute:
      return {kForwarded, kActivations};
    case Op::kBackward:
      return {kActivations | kGradient, kInputGradient | kWeightGradient};
    case Op::kInputGrad:
      return {kActivations | kGradient, kInputGradient};
    case Op::kWeightGrad:
      return {kInputGradient, kWeightGradient};
    case Op::kSendActivation:
    case Op::kHandOverActivation:
      return {kForwarded, kSentOutput};
    case Op::kSendGradient:
    case Op::kHandOverGradient:
      return {kInputGradient, kSentGradient};
    case Op::kReceiveActivation:
      return {0, kInput};
    case Op::kReceiveGradient:
      return {0, kGradient};
    default:
      return {0, 0};
  }
}

bool carries_activation(Op op) {
  return op == Op::kSendActivation || op == Op::kReceiveActivation || op == Op::kHandOverActivation;
}
bool is_receive(Op op) { return is_message(op) && !is_send(op); }
bool is_hand_over(Op op) { return op == Op::kHandOverActivation || op == Op::kHandOverGradient; }

class StageWalk {
 public:
  StageWalk(const Schedule& schedule, const Places& places, int32_t stage)
      : schedule_(schedule), places_(places), stage_(stage) {
    const auto chunks = static_cast<size_t>(schedule.chunks);
    facts_.assign(chunks * static_cast<size_t>(schedule.units()), 0);
    weight_grads_.assign(chunks, 0);
    gathers_ = reductions_ = forwards_ = weight_grads_;
  }

  StageProof run() {
    const auto units = static_cast<size_t>(schedule_.units());
    for (int32_t chunk = 0; chunk < schedule_.chunks; ++chunk) {
      uint16_t known = 0;
      if (schedule_.forward_only)
        known |= kGradient | kInputGradient | kWeightGradient | kSentGradient;
      if (place(chunk) == 0) known |= kInput | kSentGradient;
      if (place(chunk) + 1 == last_place_end()) known |= kGradient | kSentOutput;
      std::fill_n(facts_.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(chunk) * units),
                  units, known);
    }
    const Program& program = schedule_.programs[static_cast<size_t>(stage_)];
    for (size_t i = 0; i < program.size(); ++i) {
      where_ = i;
      if (program[i].op >= Op::kReduceGradients) {
        collective(program[i]);
        continue;
      }
      apply(program[i]);
      if (program[i].paired) check_pair(program, i);
    }
    finish();
    return std::move(proof_);
  }

 private:
  template <typename... Arguments>
  void complain(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    if (proof_.problems.size() < kMaxProblems)
      proof_.problems.push_back(fmt::format(text, std::forward<Arguments>(arguments)...));
  }

  int32_t place(int32_t chunk) const { return places_.of(stage_, chunk); }
  int32_t last_place_end() const { return static_cast<int32_t>(schedule_.flow.size()); }

  uint16_t& facts(int32_t chunk, int32_t microbatch, int32_t slice) {
    return facts_[(static_cast<size_t>(chunk) * static_cast<size_t>(schedule_.microbatches) +
                   static_cast<size_t>(microbatch)) *
                      static_cast<size_t>(schedule_.slices) +
                  static_cast<size_t>(slice)];
  }

  void require(const Instruction& i, uint16_t have, uint16_t needs) {
    for (uint16_t fact = 1; fact <= kSentGradient; fact <<= 1) {
      if ((needs & fact) != 0 && (have & fact) == 0)
        complain("stage {}, instruction {}: {} comes before {}", stage_, where_, name(i),
                 words(fact));
    }
  }

  void make(const Instruction& i, uint16_t& have, uint16_t makes) {
    if ((have & makes) != 0)
      complain("stage {}, instruction {}: {} comes twice", stage_, where_, name(i));
    have |= makes;
  }

  void apply(const Instruction& i) {
    uint16_t& have = facts(i.chunk, i.microbatch, i.slice);
    const Rule rule = rule_of(i);
    require(i, have, rule.needs);
    make(i, have, rule.makes);
    check_slices(i);
    if (is_hand_over(i.op))
      make(i, facts(i.peer_chunk, i.microbatch, i.slice),
           i.op == Op::kHandOverActivation ? kInput : kGradient);
    if (is_message(i.op) || is_hand_over(i.op)) check_address(i);
    count(i);
  }

  // Slices go forward in order, because attention looks back, and back in reverse.
  void check_slices(const Instruction& i) {
    if (i.op == Op::kForward && i.slice > 0)
      require(i, facts(i.chunk, i.microbatch, i.slice - 1), kForwarded);
    if ((i.op == Op::kBackward || i.op == Op::kInputGrad) && i.slice + 1 < schedule_.slices)
      require(i, facts(i.chunk, i.microbatch, i.slice + 1), kInputGradient);
  }

  void check_address(const Instruction& i) {
    const bool onwards = carries_activation(i.op) != is_receive(i.op);
    const int32_t target = place(i.chunk) + (onwards ? 1 : -1);
    const bool exists = target >= 0 && target < last_place_end();
    if (!exists || schedule_.flow[static_cast<size_t>(target)] != Place{i.peer, i.peer_chunk} ||
        is_hand_over(i.op) != (i.peer == stage_)) {
      complain("stage {}, instruction {}: {} is no neighbour in the flow", stage_, where_, name(i));
    }
    if (!is_message(i.op)) return;
    Parcel parcel{carries_activation(i.op), i.chunk, i.peer_chunk, i.microbatch, i.slice};
    if (is_receive(i.op)) std::swap(parcel.from_chunk, parcel.to_chunk);
    const auto key = is_send(i.op) ? std::pair(stage_, i.peer) : std::pair(i.peer, stage_);
    (is_send(i.op) ? proof_.sent : proof_.received)[key].push_back(parcel);
  }

  // Live activations, kept inputs, and what lies in the inbox.
  void count(const Instruction& i) {
    const int32_t at = place(i.chunk);
    const bool goes_back = i.op == Op::kBackward || i.op == Op::kInputGrad;
    if (is_receive(i.op)) ++waiting_;
    if (is_hand_over(i.op)) ++waiting_;
    if (i.op == Op::kForward && at > 0) --waiting_;
    if (goes_back && at + 1 < last_place_end()) --waiting_;
    if (i.op == Op::kForward && i.checkpoint) ++inputs_;
    if (i.op == Op::kForward && !i.checkpoint && !schedule_.forward_only) ++activations_;
    if (i.op == Op::kRecompute) {
      --inputs_;
      ++activations_;
    }
    if (i.op == Op::kForward) ++forwards_[static_cast<size_t>(i.chunk)];
    if (i.op == Op::kBackward || i.op == Op::kWeightGrad) {
      --activations_;
      ++weight_grads_[static_cast<size_t>(i.chunk)];
    }
    proof_.peak_activations = std::max(proof_.peak_activations, activations_);
    proof_.peak_inputs = std::max(proof_.peak_inputs, inputs_);
    proof_.peak_waiting = std::max(proof_.peak_waiting, waiting_);
  }

  void collective(const Instruction& i) {
    const auto chunk = static_cast<size_t>(i.chunk);
    if (i.op == Op::kGatherParameters) {
      ++gathers_[chunk];
      if (forwards_[chunk] > 0)
        complain("stage {}, instruction {}: {} comes after a forward", stage_, where_, name(i));
    } else {
      ++reductions_[chunk];
      if (weight_grads_[chunk] != schedule_.units())
        complain("stage {}, instruction {}: {} comes before all gradients", stage_, where_,
                 name(i));
    }
  }

  void check_pair(const Program& program, size_t i) {
    const bool follows = i + 1 < program.size() && program[i + 1].op == Op::kBackward;
    if (program[i].op != Op::kForward || !follows ||
        (program[i].chunk == program[i + 1].chunk &&
         program[i].microbatch == program[i + 1].microbatch)) {
      complain("stage {}, instruction {}: {} is paired with no backward of another unit", stage_, i,
               name(program[i]));
    }
  }

  void finish() {
    for (int32_t chunk = 0; chunk < schedule_.chunks; ++chunk) {
      for (int32_t m = 0; m < schedule_.microbatches; ++m) {
        for (int32_t slice = 0; slice < schedule_.slices; ++slice) {
          const uint16_t have = facts(chunk, m, slice);
          for (uint16_t fact = 1; fact <= kSentGradient; fact <<= 1) {
            if ((kAllFacts & fact & ~have) != 0)
              complain("stage {}: unit {}.{}/{} ends without {}", stage_, chunk, m, slice,
                       words(fact));
          }
        }
      }
      const auto c = static_cast<size_t>(chunk);
      const int64_t reductions = schedule_.forward_only ? 0 : 1;
      if (gathers_[c] != 1 || reductions_[c] != reductions)
        complain("stage {}: expected one gather and {} reductions of chunk {}, got {} and {}",
                 stage_, reductions, chunk, gathers_[c], reductions_[c]);
    }
    if (activations_ != 0)
      complain("stage {}: {} activations are never freed", stage_, activations_);
  }

  const Schedule& schedule_;
  const Places& places_;
  int32_t stage_;
  StageProof proof_;
  size_t where_ = 0;             // instruction
  std::vector<uint16_t> facts_;  // by chunk, microbatch, slice
  std::vector<int64_t> weight_grads_, forwards_, gathers_, reductions_;  // by chunk
  int64_t activations_ = 0, inputs_ = 0, waiting_ = 0;
};

}  // namespace

StageProof prove_stage(const Schedule& schedule, const Places& places, int32_t stage) {
  return StageWalk(schedule, places, stage).run();
}

}  // namespace qianli::plan
