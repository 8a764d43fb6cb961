// Progress of long work: one self-replacing line on a terminal, a plain line now and then in a log.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace qianli {

// Counts units of work ("tokens", "bytes", "documents") towards a total (0: unknown). update() is
// cheap: it redraws at most ten times a second on a terminal, and every `log_seconds` elsewhere.
// Not thread-safe: one thread reports.
class Progress {
 public:
  Progress(std::string label, uint64_t total, std::string unit);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` is absolute; `note` is shown at the end of the line (for example "loss 3.21").
  void update(uint64_t done, std::string_view note = {});
  // Removes the bar and logs "label: total unit in 3.2 s (x/s)".
  void finish(std::string_view note = {});

 private:
  using Clock = std::chrono::steady_clock;
  std::string line(std::string_view note) const;
  std::string label_;
  std::string unit_;
  uint64_t total_;
  uint64_t done_ = 0;
  uint64_t first_ = 0;
  bool started_ = false;
  bool finished_ = false;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point shown_;
};

// Wipes the current progress line so that another line can be printed; used by the logger.
void clear_progress_line();
bool stderr_is_terminal();

// "1.5 GB", "12.3 M", "2 h 03 min", "4.2 s".
std::string human_bytes(uint64_t bytes);
std::string human_count(double count);
std::string human_seconds(double seconds);

}  // namespace qianli
