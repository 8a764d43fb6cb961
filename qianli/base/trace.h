// What a thread does and what is on its way meanwhile, as a file for chrome://tracing or Perfetto
// ("Trace Event Format", Google). Recording costs nothing where no recorder is in use.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace qianli::trace {

class Recorder : public std::enable_shared_from_this<Recorder> {
 public:
  Recorder() : start_(std::chrono::steady_clock::now()) {}

  struct Event {
    std::string name;
    double begin = 0, end = 0;  // microseconds; end 0: not ended
    bool travels = false;       // beside what the thread does
  };

  // A piece of the thread's work; the function that ends it.
  std::function<void()> work(std::string name) { return begin(std::move(name), false); }
  // Something that goes on by itself; the function that ends it may be called by any thread.
  std::function<void()> travel(std::string name) { return begin(std::move(name), true); }

  std::vector<Event> events() const;
  // `process` is the number that the viewer shows, a rank.
  std::string json(int64_t process) const;

 private:
  std::function<void()> begin(std::string name, bool travels);
  double now() const;

  std::chrono::steady_clock::time_point start_;
  mutable std::mutex mutex_;
  std::vector<Event> events_;
};

// Of the calling thread; null: nobody records.
Recorder* recorder();

// The recorder of the thread while it lives.
class Use {
 public:
  explicit Use(std::shared_ptr<Recorder> recorder);
  ~Use();
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  std::shared_ptr<Recorder> before_;
};

// Told what the calling thread works at ("step 3, B0.1") whenever a piece of work begins or ends on
// it.
using Listener = std::function<void(const std::string& work)>;
void listen(Listener listener);

// A piece of work, from here to the end of the scope. `name` is called only where someone hears it.
class Span {
 public:
  template <class Name>
  explicit Span(const Name& name) {
    if (is_heard()) begin(name());
  }
  ~Span() {
    if (heard_) end();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  static bool is_heard();
  void begin(std::string name);
  void end();

  bool heard_ = false;
  std::function<void()> end_of_record_;  // empty: nobody records
};

}  // namespace qianli::trace
