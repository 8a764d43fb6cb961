#include "qianli/plan/prove.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "qianli/plan/prove_stage.h"
#include "qianli/plan/simulate.h"

namespace qianli::plan {
namespace {

bool is_hand_over(Op op) { return op == Op::kHandOverActivation || op == Op::kHandOverGradient; }

class Prover {
 public:
  explicit Prover(const Schedule& schedule) : schedule_(schedule) {}

  Proof run() {
    if (!well_formed()) return std::move(proof_);
    const Places places(schedule_);
    for (int32_t stage = 0; stage < schedule_.stages; ++stage)
      take(prove_stage(schedule_, places, stage));
    compare_channels();
    for (const auto& [transfer, how] :
         {std::pair{Transfer::kBlocking, "blocking"}, std::pair{Transfer::kBatched, "batched"}}) {
      if (!proof_.problems.empty()) break;  // a broken list waits for other reasons
      const Timeline line = simulate(schedule_, Times{}, transfer);
      if (!line.stuck.empty()) complain("with {} messages {}", how, line.stuck);
    }
    return std::move(proof_);
  }

 private:
  template <typename... Arguments>
  void complain(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    if (proof_.problems.size() < kMaxProblems)
      proof_.problems.push_back(fmt::format(text, std::forward<Arguments>(arguments)...));
  }

  bool within(int32_t stage, int32_t chunk) const {
    return stage >= 0 && stage < schedule_.stages && chunk >= 0 && chunk < schedule_.chunks;
  }

  bool well_formed() {
    const Schedule& s = schedule_;
    if (s.stages < 1 || s.chunks < 1 || s.microbatches < 1 || s.slices < 1 ||
        s.programs.size() != static_cast<size_t>(s.stages) ||
        s.flow.size() != static_cast<size_t>(s.stages) * static_cast<size_t>(s.chunks)) {
      complain("expected a program for each stage and a place for each chunk");
      return false;
    }
    std::map<std::pair<int32_t, int32_t>, int> seen;
    for (const Place& place : s.flow) {
      if (!within(place.stage, place.chunk) || seen[{place.stage, place.chunk}]++ > 0) {
        complain("expected each chunk once in the flow, got stage {} chunk {}", place.stage,
                 place.chunk);
        return false;
      }
    }
    for (size_t stage = 0; stage < s.programs.size(); ++stage) {
      for (const Instruction& i : s.programs[stage]) {
        const bool addressed = is_message(i.op) || is_hand_over(i.op);
        if (within(0, i.chunk) && i.microbatch >= 0 && i.microbatch < s.microbatches &&
            i.slice >= 0 && i.slice < s.slices && (!addressed || within(i.peer, i.peer_chunk))) {
          continue;
        }
        complain("stage {}: {} names what does not exist", stage, name(i));
        return false;
      }
    }
    return true;
  }

  void take(StageProof stage) {
    for (const std::string& problem : stage.problems) complain("{}", problem);
    proof_.peak_activations.push_back(stage.peak_activations);
    proof_.peak_inputs.push_back(stage.peak_inputs);
    proof_.peak_waiting.push_back(stage.peak_waiting);
    sent_.merge(stage.sent);  // a pair of stages has one sender and one receiver
    received_.merge(stage.received);
  }

  void compare_channels() {
    for (const auto& [ends, parcels] : sent_) received_[ends];
    for (const auto& [ends, got] : received_) {
      if (got != sent_[ends])
        complain("stages {} to {}: messages are not received in the order they are sent",
                 ends.first, ends.second);
    }
  }

  const Schedule& schedule_;
  Proof proof_;
  std::map<std::pair<int32_t, int32_t>, std::vector<Parcel>> sent_, received_;  // by (from, to)
};

}  // namespace

Proof prove(const Schedule& schedule) { return Prover(schedule).run(); }

}  // namespace qianli::plan
