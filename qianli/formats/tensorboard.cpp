#include "qianli/formats/tensorboard.h"

#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>

#include "qianli/base/error.h"
#include "qianli/base/log.h"

namespace qianli::formats {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}();

template <class T>
std::string fixed(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// Protobuf fields: the key is the field's number and the wire type.
enum Wire { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
std::string key(int field, Wire wire) { return varint(static_cast<uint64_t>(field) << 3 | wire); }
std::string message(int field, std::string_view content) {
  return key(field, kBytes) + varint(content.size()) + std::string(content);
}
std::string number(int field, uint64_t value) { return key(field, kVarint) + varint(value); }

// Event: 1 wall_time, 2 step, 5 summary. Step 0 is protobuf's default and left out.
std::string event_with_summary(std::string_view summary_value, int64_t step, double wall_time) {
  std::string event = key(1, kFixed64) + fixed(wall_time);
  if (step != 0) event += number(2, static_cast<uint64_t>(step));
  return event + message(5, message(1, summary_value));
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string file_name() {
  static std::atomic<int> files_opened{0};
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0 || host[0] == '\0') host = {"localhost"};
  return fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<int64_t>(now_seconds()),
                     host.data(), ::getpid(), files_opened++);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  return ~crc;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8u;
}

std::string event_file_version(double wall_time) {
  return key(1, kFixed64) + fixed(wall_time) + message(3, "brain.Event:2");
}

std::string event_scalar(std::string_view tag, float value, int64_t step, double wall_time) {
  return event_with_summary(message(1, tag) + key(2, kFixed32) + fixed(value), step, wall_time);
}

std::string event_text(std::string_view tag, std::string_view text, int64_t step,
                       double wall_time) {
  // SummaryMetadata { 1 plugin_data { 1 plugin_name } }, and a TensorProto of one string
  // { 1 dtype = DT_STRING, 2 shape { 2 dim { 1 size = 1 } }, 8 string_val }.
  constexpr uint64_t kStringType = 7;
  const std::string metadata = message(1, message(1, "text"));
  const std::string tensor =
      number(1, kStringType) + message(2, message(2, number(1, 1))) + message(8, text);
  return event_with_summary(message(1, tag) + message(8, tensor) + message(9, metadata), step,
                            wall_time);
}

std::string event_record(std::string_view payload) {
  const std::string length = fixed(static_cast<uint64_t>(payload.size()));
  return length + fixed(masked_crc32c(length)) + std::string(payload) +
         fixed(masked_crc32c(payload));
}

EventWriter::EventWriter(const fs::path& folder) : file_(nullptr, &std::fclose) {
  std::error_code error;
  fs::create_directories(folder, error);
  path_ = folder / file_name();
  file_.reset(std::fopen(path_.c_str(), "wbx"));
  if (!file_) {
    throw_file_error(FileRole::kData,
                     fmt::format("cannot create {}: {}", path_.string(), std::strerror(errno)));
  }
  write(event_file_version(now_seconds()));
  flush();
}

EventWriter::~EventWriter() {
  if (std::fflush(file_.get()) != 0) {
    log::warn("tensorboard", "cannot write {}: {}", path_.string(), std::strerror(errno));
  }
}

void EventWriter::add_scalar(std::string_view tag, float value, int64_t step) {
  write(event_scalar(tag, value, step, now_seconds()));
}

void EventWriter::add_text(std::string_view tag, std::string_view text, int64_t step) {
  write(event_text(tag, text, step, now_seconds()));
}

void EventWriter::write(const std::string& payload) {
  const std::string record = event_record(payload);
  if (std::fwrite(record.data(), 1, record.size(), file_.get()) != record.size()) {
    throw_file_error(FileRole::kData,
                     fmt::format("cannot write {}: {}", path_.string(), std::strerror(errno)));
  }
}

void EventWriter::flush() {
  if (std::fflush(file_.get()) != 0) {
    throw_file_error(FileRole::kData,
                     fmt::format("cannot write {}: {}", path_.string(), std::strerror(errno)));
  }
}

}  // namespace qianli::formats
