#include "qianli/plan/collectives.h"

#include <algorithm>

#include "qianli/plan/schedules/families.h"

namespace qianli::plan {
namespace {

bool goes_back(Op op) { return op == Op::kBackward || op == Op::kInputGrad; }

struct Insertion {
  size_t before;  // index in the program
  Instruction instruction;
};

void find_gathers(const Program& program, int32_t chunks, int64_t shift,
                  std::vector<Insertion>& insertions) {
  std::vector<size_t> forwards;
  for (size_t i = 0; i < program.size(); ++i) {
    if (program[i].op == Op::kForward) forwards.push_back(i);
  }
  for (int32_t chunk = 0; chunk < chunks; ++chunk) {
    size_t at = 0;
    if (chunk > 1) {
      const auto first =
          std::ranges::find_if(forwards, [&](size_t i) { return program[i].chunk == chunk - 1; });
      const int64_t step = first - forwards.begin() - shift;
      at = forwards[static_cast<size_t>(std::max<int64_t>(0, step))];
    }
    insertions.push_back({at, compute(Op::kGatherParameters, chunk, 0)});
  }
}

void find_reductions(const Program& program, int32_t chunks, int64_t shift,
                     std::vector<Insertion>& insertions) {
  std::vector<size_t> steps;  // where the program goes back
  std::vector<size_t> last_step(static_cast<size_t>(chunks)), complete(last_step);
  for (size_t i = 0; i < program.size(); ++i) {
    const auto chunk = static_cast<size_t>(program[i].chunk);
    if (goes_back(program[i].op)) {
      last_step[chunk] = steps.size();
      steps.push_back(i);
    }
    if (is_compute(program[i].op) && program[i].op >= Op::kBackward) complete[chunk] = i;
  }
  if (steps.empty()) return;  // forward only
  for (int32_t chunk = 0; chunk < chunks; ++chunk) {
    const size_t c = static_cast<size_t>(chunk), step = last_step[c] + static_cast<size_t>(shift);
    const size_t aligned = step < steps.size() ? steps[step] : program.size() - 1;
    insertions.push_back(
        {std::max(aligned, complete[c]) + 1, compute(Op::kReduceGradients, chunk, 0)});
  }
}

}  // namespace

void add_collectives(Program& program, int32_t chunks, int64_t shift) {
  std::vector<Insertion> insertions;
  find_gathers(program, chunks, shift, insertions);
  find_reductions(program, chunks, shift, insertions);
  std::ranges::stable_sort(insertions, {}, &Insertion::before);
  Program result;
  auto next = insertions.begin();
  for (size_t i = 0; i <= program.size(); ++i) {
    for (; next != insertions.end() && next->before == i; ++next)
      result.push_back(next->instruction);
    if (i < program.size()) result.push_back(program[i]);
  }
  program = std::move(result);
}

}  // namespace qianli::plan
