// The processes of a job on this node: started together, read line by line, ended together.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/launch/console.h"
#include "qianli/launch/message.h"
#include "qianli/launch/poller.h"
#include "qianli/launch/warden.h"

namespace qianli::launch {

struct WorkerOptions {
  std::filesystem::path program;
  std::vector<std::string> arguments;  // argv[0] is the first
  int processes = 1;
  int threads = 0;                                   // OMP_NUM_THREADS of each; 0: left alone
  bool bind_cores = false;                           // each process gets its own part of the cores
  Clock::duration grace = std::chrono::seconds(15);  // between SIGTERM and SIGKILL
  std::filesystem::path log_folder;                  // empty: none
  std::string log_prefix = "rank_";                  // rank_N.log
  std::string job;
  int max_restarts = 0;
};

class Workers {
 public:
  Workers(Poller& poller, Console& console, const WorkerOptions& options);
  ~Workers();  // kills what still runs
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Throws std::system_error where a process cannot be started.
  void start(const Start& start);
  bool running() const { return running_ > 0; }
  void send(int signal);
  // SIGTERM now, SIGKILL after the grace; gentle: both one grace later.
  void stop(bool gentle);
  void kill();
  // Stops reading while the console is full, takes the next step of a stop.
  void tick(Time now);
  Time deadline() const { return stop_.at; }
  // The first rank of this attempt that ended with another code than 0, once.
  std::optional<Failed> take_failure();

 private:
  struct Worker;
  enum class Step { kNone, kTerminate, kKill };
  struct Stopping {
    Step next = Step::kNone;
    Time at = Time::max();
  };

  void watch(Worker& worker);
  bool read_some(Worker& worker, bool is_error);
  void line(Worker& worker, bool is_error, std::string_view text);
  void ended(Worker& worker);
  std::string describe(const Worker& worker) const;

  Poller& poller_;
  Console& console_;
  const WorkerOptions& options_;
  Warden warden_;
  std::vector<std::unique_ptr<Worker>> workers_;
  int running_ = 0;
  Stopping stop_;
  bool reading_ = true;
  bool reported_ = false;
  bool interrupted_ = false;
};

}  // namespace qianli::launch
