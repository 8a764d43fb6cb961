// What one rendering may use: steps, memory, nesting. A template comes from a stranger's model
// folder, so loops, growing strings and deep recursion end in an error after bounded time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace qianli::text::jinja {

// A template that cannot be parsed or rendered. Template turns it into a DataError that names the
// file and the line.
struct TemplateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// raise_exception(): the template works, and does not take these messages.
struct Refusal : TemplateError {
  using TemplateError::TemplateError;
};

struct Limits {
  uint64_t steps = 20'000'000;  // nodes evaluated, items visited, 64-byte pieces of text touched
  size_t memory_bytes = size_t{1} << 27;  // values alive at one time, output included
  int depth = 1000;                       // nested evaluations: expressions, blocks, macro calls
};

class Meter {
 public:
  explicit Meter(const Limits& limits) : limits_(limits) {}
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  void step(uint64_t count = 1) {
    if (count > limits_.steps - steps_) throw TemplateError("the template runs for too many steps");
    steps_ += count;
  }
  // For work that grows with a text or a list.
  void work(size_t bytes) { step(1 + bytes / 64); }

  void allocate(size_t bytes) {
    if (bytes > limits_.memory_bytes - memory_) {
      throw TemplateError("the template needs too much memory");
    }
    memory_ += bytes;
  }
  void release(size_t bytes) { memory_ -= bytes; }
  // Throws where `bytes` more would be too many.
  void check_fits(size_t bytes) {
    allocate(bytes);
    release(bytes);
  }
  // Before making something whose size a template chose: "x" * 10**12.
  void expect(size_t bytes) {
    check_fits(bytes);
    work(bytes);
  }

  void enter() {
    if (++depth_ > limits_.depth) {
      --depth_;
      throw TemplateError("the template nests or recurses too deeply");
    }
    step();
  }
  void leave() { --depth_; }

 private:
  Limits limits_;
  uint64_t steps_ = 0;
  size_t memory_ = 0;
  int depth_ = 0;
};

// Memory taken from a meter for as long as this lives.
class Charge {
 public:
  Charge(Meter& meter, size_t bytes) : meter_(&meter), bytes_(bytes) { meter.allocate(bytes); }
  ~Charge() { meter_->release(bytes_); }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;
  void add(size_t bytes) {
    meter_->allocate(bytes);
    bytes_ += bytes;
  }

 private:
  Meter* meter_;
  size_t bytes_;
};

class DepthGuard {
 public:
  explicit DepthGuard(Meter& meter) : meter_(meter) { meter.enter(); }
  ~DepthGuard() { meter_.leave(); }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  Meter& meter_;
};

}  // namespace qianli::text::jinja
