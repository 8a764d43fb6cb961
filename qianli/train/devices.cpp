#include "qianli/train/devices.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/config/communicators.h"
#include "qianli/device/device.h"
#include "qianli/dist/agreement.h"
#include "qianli/dist/device_communication.h"
#include "qianli/plan/communicator_buffers.h"

namespace qianli::train {
namespace {

using Options = std::map<std::string, config::CommunicatorOptions>;

void warn_of_what_is_ignored(c10::Device device, const config::ParallelConfig& config,
                             const Options& options) {
  if (config.communicators.empty()) return;
  if (device.is_cpu()) {
    log::warn("parallel",
              "parallel.communicators has no effect: Gloo, which serves the CPU, has "
              "neither thread blocks nor buffers to set");
    return;
  }
  for (const auto& each : config::parse_communicators(config.communicators)) {
    if (each.group.empty())
      log::warn("parallel", "parallel.communicators: {} has no effect, no group here is like it",
                each.written);
  }
  const auto some = [&](auto member) {
    return std::ranges::any_of(options, [&](const auto& each) { return each.second.*member > 0; });
  };
  if (device.is_cuda() && some(&config::CommunicatorOptions::buffer_bytes))
    log::warn("parallel",
              "NCCL has one buffer size for all communicators: the largest of "
              "parallel.communicators, unless NCCL_BUFFSIZE is set");
  if (!device.is_cuda() && some(&config::CommunicatorOptions::max_ctas))
    log::warn("parallel", "ctas of parallel.communicators has no effect: it is NCCL's");
}

// "0: node7 0000:1b:00.0" of two ranks; empty: all have their own.
std::string shared_device(const std::vector<std::string>& devices) {
  std::map<std::string, size_t> first;
  for (size_t rank = 0; rank < devices.size(); ++rank) {
    if (devices[rank].empty()) continue;
    const auto [other, fresh] = first.try_emplace(devices[rank], rank);
    if (!fresh)
      return fmt::format("expected a device for each rank, got one for ranks {} and {} ({})",
                         other->second, rank, devices[rank]);
  }
  return {};
}

std::string place_of(c10::Device device) {
  const std::string own = device::identity(device);
  if (own.empty()) return {};
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("{} {}", host.data(), own);
}

// That is not a group of this layout, by rank 0, which is in one of each kind.
std::string unknown_group(const dist::World& world, const std::string& communicators) {
  std::vector<std::string> known = world.group_names();
  std::ranges::transform(known, known.begin(), config::written_name);
  for (const auto& each : config::parse_communicators(communicators)) {
    // Names of other programs are written for all layouts at once.
    if (each.foreign || std::ranges::find(known, config::written_name(each.group)) != known.end())
      continue;
    return fmt::format(
        "expected parallel.communicators to name groups of this layout ({}), got '{}'{}",
        fmt::join(known, ", "), each.written, suggestion(each.written, known));
  }
  return {};
}

}  // namespace

dist::Devices devices_for(c10::Device device, const config::Config& config, bool speaks,
                          const std::function<model::ModelSpec()>& model) {
  Options options;
  for (const auto& each : config::parse_communicators(config.parallel.communicators)) {
    if (!each.group.empty()) options[each.group] = each.options;
  }
  if (speaks) warn_of_what_is_ignored(device, config.parallel, options);
  if (config.parallel.adaptive_buffers && device.is_privateuseone()) {
    for (const auto& [group, bytes] :
         plan::adaptive_buffers(plan::message_sizes(config, model()))) {
      if (options[group].buffer_bytes == 0) options[group].buffer_bytes = bytes;
    }
  }
  return dist::devices_of(device, std::move(options));
}

void expect_own_devices(const dist::World& world, c10::Device device) {
  if (device.is_cpu()) return;
  const dist::Group hosts =
      world.all("devices", dist::Patience::kDeadline, dist::Carries::kHostTensors);
  const auto devices = dist::every_rank(hosts, [&] { return place_of(device); });
  const std::string problem = dist::first_rank(hosts, [&] { return shared_device(devices); });
  if (!problem.empty())
    throw ConfigError("device", problem,
                      "start as many ranks as there are GPUs, or use device=cpu");
}

void expect_known_groups(const Ranks& ranks, const std::string& communicators) {
  const std::string problem =
      dist::first_rank(ranks.all, [&] { return unknown_group(ranks.world, communicators); });
  if (!problem.empty()) throw ConfigError("parallel", problem);
}

}  // namespace qianli::train
