#include "qianli/dist/world.h"

#include <fmt/format.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <numeric>

#include "qianli/dist/device_side.h"
#include "qianli/dist/gloo_backend.h"
#include "qianli/dist/group_state.h"
#include "qianli/dist/world_state.h"

namespace qianli::dist {
namespace {

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

// For what ends when it ends.
constexpr std::chrono::milliseconds kForever = std::chrono::hours(24 * 20);  // fits poll(2)

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

void World::State::use(Devices devices) {
  if (!devices.transport) return;
  watch = std::make_shared<DeviceWatch>(activity);
  options = std::move(devices.options);
  transport = std::move(devices.transport);
}

void World::State::add_device_side(Group::State& group,
                                   const c10::intrusive_ptr<c10d::Store>& its_store) const {
  // Patience without a deadline is for hosts, in the background of a step.
  if (!transport || group.patience != Patience::kDeadline) return;
  const auto own = options.find(group.name);
  group.device = std::make_shared<DeviceSide>(
      DeviceCommon{transport, watch, activity, group.deadline}, its_store, group.name, group.ranks,
      group.rank, own == options.end() ? config::CommunicatorOptions{} : own->second);
}

World::World() : state_(std::make_shared<State>()) {}

World World::connect(const Rendezvous& rendezvous, Devices devices) {
  auto state = std::make_shared<State>();
  state->rendezvous = rendezvous;
  if (rendezvous.size == 1) return World(state);
  state->loopback = is_loopback(rendezvous.host);
  set_up_c10d();
  c10d::TCPStoreOptions options;
  options.port = rendezvous.port;
  options.isServer = rendezvous.serve && rendezvous.rank == 0;
  options.numWorkers = static_cast<size_t>(rendezvous.size);
  options.timeout = rendezvous.deadline;
  try {
    state->store = c10::make_intrusive<c10d::PrefixStore>(
        fmt::format("qianli/{}", rendezvous.attempt),
        c10::make_intrusive<c10d::TCPStore>(rendezvous.host, options));
    state->activity = Activity::start(state->store->clone(), rendezvous.rank, rendezvous.size);
    state->use(std::move(devices));
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    throw LostRankError(
        fmt::format("expected all {} ranks to meet at {}:{} within {:g} s, rank {} got: {}",
                    rendezvous.size, rendezvous.host, rendezvous.port, seconds(rendezvous.deadline),
                    rendezvous.rank, reason.substr(0, reason.find('\n'))),
        "MASTER_ADDR and MASTER_PORT must name rank 0's machine and a free port there");
  }
  return World(state);
}

int64_t World::rank() const { return state_->rendezvous.rank; }
int64_t World::size() const { return state_->rendezvous.size; }

Group World::group(const std::vector<int64_t>& ranks, const std::string& name, Patience patience,
                   Carries carries) const {
  auto group = std::make_shared<Group::State>();
  group->name = name;
  group->ranks = ranks;
  const auto own = std::find(ranks.begin(), ranks.end(), rank());
  TORCH_CHECK(own != ranks.end(), "[dist] expected rank ", rank(), " in the group ", name,
              " of ranks ", ranks);
  group->rank = own - ranks.begin();
  group->deadline = state_->rendezvous.deadline;
  group->patience = patience;
  group->activity = state_->activity;
  if (ranks.size() == 1) return Group(group);
  if (carries == Carries::kAll) state_->names.insert(name);
  // Groups of the same kind elsewhere have the same name and other ranks.
  const auto store = c10::make_intrusive<c10d::PrefixStore>(
      fmt::format("{}/{}", name, fmt::join(ranks, ",")), state_->store);
  const Activity::Waiting waiting(group->activity.get(),
                                  fmt::format("{} to form the group {}", name_of(ranks), name));
  try {
    group->host =
        gloo_backend(store, group->rank, static_cast<int64_t>(ranks.size()), state_->loopback,
                     patience == Patience::kDeadline ? group->deadline : kForever);
    group->watch = state_->watch;
    if (carries == Carries::kAll) state_->add_device_side(*group, store);
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    throw LostRankError(
        fmt::format("expected {} to form the group {} within {:g} s, rank {} got: {} ({})",
                    name_of(ranks), name, seconds(group->deadline), rank(),
                    reason.substr(0, reason.find('\n')), group->activity->of_all()));
  }
  return Group(group);
}

std::vector<std::string> World::group_names() const {
  return {state_->names.begin(), state_->names.end()};
}

Group World::all(const std::string& name, Patience patience, Carries carries) const {
  std::vector<int64_t> ranks(static_cast<size_t>(size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return group(ranks, name, patience, carries);
}

void World::first_alone(const std::string& name, const std::function<void()>& action) const {
  if (size() == 1) return action();
  const std::string key = "first/" + name;
  const auto say = [&](const std::string& text) {
    state_->store->set(key, std::vector<uint8_t>(text.begin(), text.end()));
  };
  if (rank() == 0) {
    try {
      action();
    } catch (const std::exception& error) {
      say(std::string("-") + error.what());
      throw;
    }
    return say("+");
  }
  std::vector<uint8_t> said;
  const Activity::Waiting waiting(state_->activity.get(), "rank 0 to finish " + name);
  try {
    state_->activity->wait_while_heard(
        {0}, state_->rendezvous.deadline,
        [store = state_->store->clone(), key] { store->wait({key}, kForever); });
    said = state_->store->get(key);
  } catch (const std::exception& error) {
    const std::string reason = error.what();
    throw LostRankError(fmt::format("expected rank 0 to finish {}, rank {} got: {}", name, rank(),
                                    reason.substr(0, reason.find('\n'))));
  }
  if (said.front() == '-') {
    throw LostRankError(
        fmt::format("rank 0 failed: {}", std::string(said.begin() + 1, said.end())));
  }
  action();
}

}  // namespace qianli::dist
