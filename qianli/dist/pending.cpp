// What has begun between ranks and is to be waited for.
#include <fmt/format.h>

#include <utility>

#include "qianli/base/trace.h"
#include "qianli/dist/group_state.h"
#include "qianli/dist/under_way.h"

namespace qianli::dist {
namespace {

thread_local int64_t started_and_not_awaited = 0;

}  // namespace

int64_t under_way() { return started_and_not_awaited; }

std::string first_line(const std::string& text) {
  const size_t begin = text.starts_with("[/") ? text.find("] ") : text.npos;
  const size_t first = begin == text.npos ? 0 : begin + 2;
  return text.substr(first, text.find('\n') - first);
}

std::string Group::State::where() const { return fmt::format("{} of {}", name, name_of(ranks)); }

LostRankError Group::State::lost(const std::string& what, const std::string& reason) const {
  return {fmt::format("expected {} on rank {} ({}) to end within {:g} s, got: {} ({})", what,
                      ranks[static_cast<size_t>(rank)], where(),
                      std::chrono::duration<double>(deadline).count(), reason, activity->of_all()),
          "look at the rank that does something else or is not heard of; its own log says more"};
}

Pending::State::State() { ++started_and_not_awaited; }

Pending::State::~State() {
  --started_and_not_awaited;
  if (!on_device || !work) return;
  try {
    work->wait();  // the stream, before the tensors' memory serves others
  } catch (const std::exception&) {
    // It is lost, as those will be that are waited for.
  }
}

void Pending::State::pass_on_device() {
  work->wait();
  group->watch->follow(
      {.passed = group->device->transport().mark(work),
       .what = fmt::format("{} of {}", what, group->where()),
       .deadline = std::chrono::steady_clock::now() + group->deadline,
       .error = [group = group,
                 what = what](const std::string& reason) { return group->lost(what, reason); },
       .at_end = std::exchange(waited, {})});
}

void Pending::wait() {
  if (!state_) return;
  const auto state = std::move(state_);
  const Group::State& group = *state->group;
  if (group.watch) group.watch->check();
  const Activity::Waiting waiting(group.activity.get(),
                                  fmt::format("{} of {}", state->what, group.where()));
  try {
    if (state->on_device) {
      state->pass_on_device();
    } else if (group.patience == Patience::kDeadline) {
      state->work->wait();
    } else {
      group.activity->wait_while_heard(group.ranks, group.deadline,
                                       [state] { state->work->wait(); });
    }
  } catch (const std::exception& error) {
    throw group.lost(state->what, first_line(error.what()));
  }
  if (state->waited) state->waited();
  state->work.reset();
}

}  // namespace qianli::dist
