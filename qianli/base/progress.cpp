#include "qianli/base/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>

#include "qianli/base/log.h"

namespace qianli {
namespace {

constexpr double kLogSeconds = 10.0;
constexpr double kRedrawSeconds = 0.1;
std::atomic<bool> line_on_screen{false};

double seconds_between(std::chrono::steady_clock::time_point a,
                       std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

bool stderr_is_terminal() {
  static const bool terminal = ::isatty(2) == 1;
  return terminal;
}

void clear_progress_line() {
  if (line_on_screen.exchange(false)) std::fputs("\r\033[K", stderr);
}

std::string human_count(double count) {
  const char* suffix[] = {"", " k", " M", " G", " T", " P"};
  int step = 0;
  while (count >= 1000.0 && step < 5) {
    count /= 1000.0;
    ++step;
  }
  if (step == 0 && count == static_cast<int64_t>(count)) return fmt::format("{:.0f}", count);
  return fmt::format("{:.{}f}{}", count, count < 10 ? 2 : 1, suffix[step]);
}

std::string human_bytes(uint64_t bytes) {
  const std::string count = human_count(static_cast<double>(bytes));
  return count.find(' ') == std::string::npos ? count + " B" : count + "B";
}

std::string human_seconds(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
}

Progress::Progress(std::string label, uint64_t total, std::string unit)
    : label_(std::move(label)), unit_(std::move(unit)), total_(total), shown_(begin_) {}

Progress::~Progress() {
  if (!finished_) clear_progress_line();
}

std::string Progress::line(std::string_view note) const {
  const double elapsed = seconds_between(begin_, Clock::now());
  const double rate = elapsed > 0 ? static_cast<double>(done_ - first_) / elapsed : 0;
  std::string text = label_ + ": ";
  if (total_ > 0) {
    text += fmt::format(
        "{:5.1f} %, {} of {} {}", 100.0 * static_cast<double>(done_) / static_cast<double>(total_),
        human_count(static_cast<double>(done_)), human_count(static_cast<double>(total_)), unit_);
  } else {
    text += fmt::format("{} {}", human_count(static_cast<double>(done_)), unit_);
  }
  if (rate > 0) text += fmt::format(", {}/s", human_count(rate));
  if (rate > 0 && total_ > done_) {
    text += fmt::format(", {} left", human_seconds(static_cast<double>(total_ - done_) / rate));
  }
  if (!note.empty()) text += fmt::format(", {}", note);
  return text;
}

void Progress::update(uint64_t done, std::string_view note) {
  const auto now = Clock::now();
  if (!started_) {
    // Work done before the first report (a resumed job) must not count in the rate.
    started_ = true;
    first_ = done;
    begin_ = now;
  }
  done_ = done;
  const double since = seconds_between(shown_, now);
  if (stderr_is_terminal()) {
    if (since < kRedrawSeconds) return;
    std::fputs(("\r\033[K" + line(note)).c_str(), stderr);
    std::fflush(stderr);
    line_on_screen = true;
  } else {
    if (since < kLogSeconds) return;
    log::say(line(note));
  }
  shown_ = now;
}

void Progress::finish(std::string_view note) {
  finished_ = true;
  const double elapsed = seconds_between(begin_, Clock::now());
  const double rate = elapsed > 0 ? static_cast<double>(done_ - first_) / elapsed : 0;
  std::string text = fmt::format("{}: {} {} in {}", label_, human_count(static_cast<double>(done_)),
                                 unit_, human_seconds(elapsed));
  if (rate > 0) text += fmt::format(", {}/s", human_count(rate));
  if (!note.empty()) text += fmt::format(", {}", note);
  log::say(text);
}

}  // namespace qianli
