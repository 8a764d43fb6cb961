#include "qianli/plan/weave.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/plan/simulate.h"

namespace qianli::plan {
namespace {

// A computation on one stage, or a message from it.
struct Event {
  double time;  // a computation's beginning; when a message's content is there
  bool computes;
  bool backwards;  // a message towards the previous stage
  int32_t stage;
  size_t index;  // in the stage's program: the computation, or what the message follows
  Instruction instruction;
  int32_t receiver = -1;

  auto order() const { return std::tuple(time, computes, backwards, stage % 2, stage, index); }
};

class Weaver {
 public:
  explicit Weaver(Schedule& schedule) : schedule_(schedule), places_(schedule) {}

  void run() {
    const Timeline timeline = simulate(schedule_, Times{});
    if (!timeline.stuck.empty()) throw ConfigError("schedule", timeline.stuck);
    for (int32_t stage = 0; stage < schedule_.stages; ++stage) {
      const Program& program = schedule_.programs[static_cast<size_t>(stage)];
      const auto& spans = timeline.spans[static_cast<size_t>(stage)];
      for (size_t i = 0; i < program.size(); ++i) {
        events_.push_back({.time = spans[i].begin,
                           .computes = true,
                           .stage = stage,
                           .index = i,
                           .instruction = program[i]});
        add_message(program[i], stage, i, spans[i].end);
      }
    }
    std::ranges::sort(events_, {}, &Event::order);
    std::vector<Program> programs(schedule_.programs.size());
    for (const Event& event : events_) emit(event, programs);
    schedule_.programs = std::move(programs);
  }

 private:
  void add_message(const Instruction& source, int32_t stage, size_t index, double time) {
    const bool forward = source.op == Op::kForward;
    if (!forward && source.op != Op::kBackward && source.op != Op::kInputGrad) return;
    const int32_t place = places_.of(stage, source.chunk) + (forward ? 1 : -1);
    if (place < 0 || place == static_cast<int32_t>(schedule_.flow.size())) return;
    const Place target = schedule_.flow[static_cast<size_t>(place)];
    Instruction message = source;
    message.checkpoint = message.paired = false;
    message.peer = target.stage;
    message.peer_chunk = target.chunk;
    if (target.stage == stage) {
      message.op = forward ? Op::kHandOverActivation : Op::kHandOverGradient;
    } else {
      message.op = forward ? Op::kSendActivation : Op::kSendGradient;
    }
    const bool to_next =
        target.stage == (stage + 1) % schedule_.stages && (schedule_.stages > 2 || forward);
    events_.push_back({.time = time,
                       .computes = false,
                       .backwards = !to_next,
                       .stage = stage,
                       .index = index,
                       .instruction = message,
                       .receiver = target.stage == stage ? -1 : target.stage});
  }

  static void emit(const Event& event, std::vector<Program>& programs) {
    programs[static_cast<size_t>(event.stage)].push_back(event.instruction);
    if (event.receiver < 0) return;
    Instruction receive = event.instruction;
    receive.op = receive.op == Op::kSendActivation ? Op::kReceiveActivation : Op::kReceiveGradient;
    receive.peer = event.stage;
    std::swap(receive.chunk, receive.peer_chunk);
    programs[static_cast<size_t>(event.receiver)].push_back(receive);
  }

  Schedule& schedule_;
  Places places_;
  std::vector<Event> events_;
};

}  // namespace

void weave_messages(Schedule& schedule) { Weaver(schedule).run(); }

}  // namespace qianli::plan
