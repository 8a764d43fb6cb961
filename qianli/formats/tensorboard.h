// TensorBoard event files: scalars and texts of a run, readable while they are being written.
//
// A file is a sequence of records: u64 length, masked CRC32C of the length, payload (protobuf
// `tensorflow.Event`), masked CRC32C of the payload.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "qianli/base/file.h"

namespace qianli::formats {

// Castagnoli's CRC (reflected polynomial 0x82F63B78), and the masked form that records carry.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

// Payloads and their framing; times in seconds since 1970.
std::string event_file_version(double wall_time);
std::string event_scalar(std::string_view tag, float value, int64_t step, double wall_time);
std::string event_text(std::string_view tag, std::string_view text, int64_t step, double wall_time);
std::string event_record(std::string_view payload);

// One event file, events.out.tfevents.SECONDS.HOST.PID.N, in a folder that is made where it is
// missing. Not thread-safe. Failures throw DataError naming the file.
class EventWriter {
 public:
  explicit EventWriter(const fs::path& folder);
  // Writes what is buffered; a failure is logged.
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void add_scalar(std::string_view tag, float value, int64_t step);
  // Markdown, shown under "Text".
  void add_text(std::string_view tag, std::string_view text, int64_t step);
  // Hands everything to the system, so that a viewer sees it.
  void flush();
  const fs::path& path() const { return path_; }

 private:
  void write(const std::string& payload);

  fs::path path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

}  // namespace qianli::formats
