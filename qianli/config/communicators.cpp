#include "qianli/config/communicators.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"

namespace qianli::config {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;
constexpr int64_t kMostCtas = 64, kMostBufferBytes = int64_t{1} << 36;

// MindSpeed's names of groups (its docs/features/hccl-group-buffer-set.md). Empty: a group that is
// part of, or larger than, those that are made here.
constexpr std::array<std::pair<std::string_view, std::string_view>, 26> kForeignNames{{
    {"tp", "tensor"},
    {"dp", "data"},
    {"dp_cp", "data"},
    {"cp", "context"},
    {"cp_ulysses", "context heads"},
    {"cp_ring", "context ring"},
    {"exp", "experts"},
    {"tp_exp", "expert tensor"},
    {"dp_modulo_exp", "expert data"},
    {"pp", "stages"},
    {"pp_new_stream", "stages"},
    {"embd", "embedding"},
    {"nd1_dim1", "tensor x"},
    {"nd1_dim2", "tensor y"},
    {"mp", ""},
    {"mp_exp", ""},
    {"tp_dp_cp", ""},
    {"tp_dp", ""},
    {"tp_cp", ""},
    {"cp2", ""},
    {"cp_ring_intra", ""},
    {"cp_ring_intra_overlap", ""},
    {"nd2_dim1", ""},
    {"nd2_dim2", ""},
    {"ag_x_sd_rcv_overlap", ""},
    {"ag_y_sd_rcv_overlap", ""},
}};

[[noreturn]] void refuse(std::string_view entry, const std::string& expected) {
  throw ConfigError(
      "config",
      fmt::format("expected parallel.communicators to give {}, got '{}'", expected, entry),
      "for example \"tensor:ctas=8,buffer=4M;experts:ctas=4-16\"");
}

std::optional<int64_t> number(std::string_view text, int64_t most) {
  int64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || rest != text.data() + text.size() || value < 1 || value > most)
    return {};
  return value;
}

// Bytes of "4M", "512K", "1G" or "4194304".
std::optional<int64_t> bytes(std::string_view text) {
  int64_t unit = 1;
  constexpr std::string_view kUnits = "KMG";
  if (const size_t at = text.empty() ? kUnits.npos : kUnits.find(text.back()); at != kUnits.npos) {
    unit = int64_t{1} << (10 * (at + 1));
    text.remove_suffix(1);
  }
  const auto count = number(text, kMostBufferBytes / unit);
  if (!count) return {};
  return *count * unit;
}

void read_ctas(std::string_view entry, std::string_view text, CommunicatorOptions& options) {
  const size_t dash = text.find('-');
  const auto min = number(text.substr(0, dash), kMostCtas);
  const auto max = dash == text.npos ? min : number(text.substr(dash + 1), kMostCtas);
  if (!min || !max || *min > *max)
    refuse(entry, fmt::format("ctas as a number or a range within 1 to {}", kMostCtas));
  options.min_ctas = *min;
  options.max_ctas = *max;
}

void read_setting(std::string_view entry, std::string_view text, CommunicatorOptions& options) {
  const size_t sign = text.find('=');
  const std::string_view key = trim(text.substr(0, sign));
  const std::string_view value = sign == text.npos ? "" : trim(text.substr(sign + 1));
  if (sign == text.npos) {
    const auto megabytes = number(key, kMostBufferBytes / kMebibyte);
    if (!megabytes) refuse(entry, "ctas=N, buffer=SIZE or a buffer in MB behind the group's name");
    options.buffer_bytes = *megabytes * kMebibyte;
  } else if (key == "ctas") {
    read_ctas(entry, value, options);
  } else if (key == "buffer") {
    const auto size = bytes(value);
    if (!size) refuse(entry, "a buffer as a size up to 64G, with K, M or G");
    options.buffer_bytes = *size;
  } else {
    const std::vector<std::string> keys{"ctas", "buffer"};
    refuse(entry, fmt::format("ctas or buffer{}", suggestion(key, keys)));
  }
}

}  // namespace

std::string written_name(std::string_view group) {
  std::string name(group);
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

std::vector<NamedCommunicator> parse_communicators(std::string_view text) {
  std::vector<NamedCommunicator> all;
  for (const std::string& part : split(std::string(text), ';')) {
    const std::string_view entry = trim(part);
    if (entry.empty()) continue;
    const size_t colon = entry.find(':');
    NamedCommunicator one{
        .written = std::string(trim(entry.substr(0, colon))), .group = {}, .options = {}};
    if (colon == entry.npos || one.written.empty())
      refuse(entry, "entries of the form GROUP:SETTINGS, separated by ';'");
    const auto* foreign = std::find_if(kForeignNames.begin(), kForeignNames.end(),
                                       [&](const auto& each) { return each.first == one.written; });
    one.foreign = foreign != kForeignNames.end();
    one.group = one.foreign ? std::string(foreign->second) : one.written;
    std::replace(one.group.begin(), one.group.end(), '_', ' ');
    for (const std::string& setting : split(std::string(entry.substr(colon + 1)), ','))
      read_setting(entry, trim(setting), one.options);
    const auto same = [&](const NamedCommunicator& other) { return other.written == one.written; };
    if (std::any_of(all.begin(), all.end(), same)) refuse(entry, "each group once");
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace qianli::config
