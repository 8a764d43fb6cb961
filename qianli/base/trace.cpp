#include "qianli/base/trace.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace qianli::trace {
namespace {

thread_local std::shared_ptr<Recorder> current;
thread_local Listener listener_of_thread;
thread_local std::vector<std::string> works;  // one within the other

void tell_listener() {
  if (!listener_of_thread) return;
  std::string all;
  for (const std::string& work : works) all += (all.empty() ? "" : ", ") + work;
  listener_of_thread(all);
}

}  // namespace

double Recorder::now() const {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start_)
      .count();
}

std::function<void()> Recorder::begin(std::string name, bool travels) {
  const std::lock_guard lock(mutex_);
  const size_t place = events_.size();
  events_.push_back({.name = std::move(name), .begin = now(), .travels = travels});
  return [self = shared_from_this(), place] {
    const std::lock_guard ending(self->mutex_);
    self->events_[place].end = self->now();
  };
}

std::vector<Recorder::Event> Recorder::events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

std::string Recorder::json(int64_t process) const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  int64_t id = 0;
  for (const Event& event : events()) {
    const double end = event.end > 0 ? event.end : now();
    if (!event.travels) {
      list.push_back({{"name", event.name},
                      {"ph", "X"},
                      {"ts", event.begin},
                      {"dur", end - event.begin},
                      {"pid", process},
                      {"tid", 0}});
      continue;
    }
    ++id;
    for (const auto& [phase, time] : {std::pair("b", event.begin), std::pair("e", end)}) {
      list.push_back({{"name", event.name},
                      {"cat", "communication"},
                      {"ph", phase},
                      {"id", id},
                      {"ts", time},
                      {"pid", process},
                      {"tid", 1}});
    }
  }
  return nlohmann::ordered_json{{"traceEvents", std::move(list)}}.dump(
      1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Recorder* recorder() { return current.get(); }

Use::Use(std::shared_ptr<Recorder> recorder)
    : before_(std::exchange(current, std::move(recorder))) {}

Use::~Use() { current = std::move(before_); }

void listen(Listener listener) { listener_of_thread = std::move(listener); }

bool Span::is_heard() { return current || listener_of_thread; }

void Span::begin(std::string name) {
  heard_ = true;
  works.push_back(name);
  tell_listener();
  if (current) end_of_record_ = current->work(std::move(name));
}

void Span::end() {
  if (end_of_record_) end_of_record_();
  works.pop_back();
  tell_listener();
}

}  // namespace qianli::trace
