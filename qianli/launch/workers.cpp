#include "qianli/launch/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "qianli/base/error.h"
#include "qianli/launch/child.h"
#include "qianli/launch/cores.h"
#include "qianli/launch/lines.h"

namespace qianli::launch {
namespace {

constexpr int kStopped = static_cast<int>(ExitCode::kStopped);

Environment environment_of(const WorkerOptions& options, const Start& start, int local_rank) {
  Environment environment = process_environment();
  const auto set = [&](const char* name, auto value) {
    environment[name] = fmt::format("{}", value);
  };
  const int rank = start.first_rank + local_rank;
  set("RANK", rank);
  set("LOCAL_RANK", local_rank);
  set("GROUP_RANK", start.node_rank);
  set("ROLE_RANK", rank);
  set("ROLE_NAME", "default");
  set("WORLD_SIZE", start.world_size);
  set("LOCAL_WORLD_SIZE", options.processes);
  set("GROUP_WORLD_SIZE", start.nodes);
  set("ROLE_WORLD_SIZE", start.world_size);
  set("MASTER_ADDR", start.master_address);
  set("MASTER_PORT", start.master_port);
  set("TORCHELASTIC_RESTART_COUNT", start.attempt);
  set("TORCHELASTIC_MAX_RESTARTS", options.max_restarts);
  set("TORCHELASTIC_RUN_ID", options.job);
  set("TORCHELASTIC_USE_AGENT_STORE", "False");  // rank 0 serves the store
  if (options.threads > 0) {
    environment.try_emplace("OMP_NUM_THREADS", std::to_string(options.threads));
    environment.try_emplace("QIANLI_THREADS", std::to_string(options.threads));
  }
  return environment;
}

int code_of(int status) {
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

struct Workers::Worker {
  int rank = 0;
  Child child;
  Descriptor log;
  LineSplitter output, error;
  Tail output_tail, error_tail;
  Time started;
  std::optional<int> status;
  double seconds = 0;
};

Workers::Workers(Poller& poller, Console& console, const WorkerOptions& options)
    : poller_(poller), console_(console), options_(options) {}

Workers::~Workers() {
  for (auto& worker : workers_) {
    if (worker->status) continue;
    poller_.forget(worker->child.handle.get());
    poller_.forget(worker->child.output.get());
    poller_.forget(worker->child.error.get());
    ::kill(-worker->child.process, SIGKILL);
    warden_.remove(worker->child.process);
    ::waitpid(worker->child.process, nullptr, 0);
  }
}

void Workers::start(const Start& start) {
  workers_.clear();
  stop_ = {};
  reported_ = false;
  const auto cores =
      options_.bind_cores ? divide_cores(options_.processes) : std::vector<cpu_set_t>{};
  for (int i = 0; i < options_.processes; ++i) {
    auto worker = std::make_unique<Worker>();
    worker->rank = start.first_rank + i;
    if (!options_.log_folder.empty()) {
      const auto path =
          options_.log_folder / fmt::format("{}{}.log", options_.log_prefix, worker->rank);
      worker->log =
          Descriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
      if (!worker->log)
        console_.say(fmt::format("cannot write {}: {}", path.string(), std::strerror(errno)));
    }
    worker->started = Clock::now();
    worker->child =
        start_child(options_.program, options_.arguments, environment_of(options_, start, i),
                    cores.empty() ? std::nullopt : std::optional(cores[static_cast<size_t>(i)]));
    warden_.add(worker->child.process);
    ++running_;
    workers_.push_back(std::move(worker));
    watch(*workers_.back());
  }
}

void Workers::watch(Worker& worker) {
  const short events = reading_ ? POLLIN : 0;
  poller_.watch(worker.child.output.get(), events, [&] { read_some(worker, false); });
  poller_.watch(worker.child.error.get(), events, [&] { read_some(worker, true); });
  poller_.watch(worker.child.handle.get(), POLLIN, [&] { ended(worker); });
}

// False where there is nothing more for now.
bool Workers::read_some(Worker& worker, bool is_error) {
  Descriptor& pipe = is_error ? worker.child.error : worker.child.output;
  if (!pipe) return false;
  char bytes[16 << 10];
  const ssize_t count = ::read(pipe.get(), bytes, sizeof bytes);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  const auto emit = [&](std::string_view text) { line(worker, is_error, text); };
  LineSplitter& splitter = is_error ? worker.error : worker.output;
  if (count <= 0) {
    splitter.finish(emit);
    poller_.forget(pipe.get());
    pipe.close();
    return false;
  }
  const std::string_view text(bytes, static_cast<size_t>(count));
  if (worker.log && !write_all(worker.log.get(), text)) {
    console_.say(fmt::format("cannot write the log of rank {} any more: {}", worker.rank,
                             std::strerror(errno)));
    worker.log.close();
  }
  splitter.add(text, emit);
  return true;
}

void Workers::line(Worker& worker, bool is_error, std::string_view text) {
  console_.rank_line(worker.rank, is_error, text);
  (is_error ? worker.error_tail : worker.output_tail).add(text);
}

// Whatever the process has left behind goes first: while it is not waited for, the number of its
// group belongs to nobody else.
void Workers::ended(Worker& worker) {
  const pid_t process = worker.child.process;
  ::kill(-process, SIGKILL);
  // A pipe's worth: something that left the group may hold the other end and go on writing.
  constexpr int kMostReads = 64;
  for (const bool is_error : {false, true}) {
    for (int i = 0; i < kMostReads && read_some(worker, is_error); ++i) {
    }
    Descriptor& pipe = is_error ? worker.child.error : worker.child.output;
    if (!pipe) continue;
    (is_error ? worker.error : worker.output).finish([&](std::string_view text) {
      line(worker, is_error, text);
    });
    poller_.forget(pipe.get());
    pipe.close();
  }
  poller_.forget(worker.child.handle.get());
  warden_.remove(process);
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  worker.status = status;
  worker.seconds = std::chrono::duration<double>(Clock::now() - worker.started).count();
  worker.child.handle.close();
  if (--running_ == 0) stop_ = {};
}

void Workers::send(int signal) {
  interrupted_ = interrupted_ || signal == SIGINT || signal == SIGTERM || signal == SIGHUP;
  for (const auto& worker : workers_)
    if (!worker->status) ::kill(-worker->child.process, signal);
}

void Workers::stop(bool gentle) {
  if (!running() || stop_.next == Step::kKill) return;
  if (gentle) {
    if (stop_.next == Step::kNone) stop_ = {Step::kTerminate, Clock::now() + options_.grace};
    return;
  }
  for (const auto& worker : workers_) {
    if (worker->status) continue;
    ::kill(-worker->child.process, SIGTERM);
    ::kill(-worker->child.process, SIGCONT);  // a stopped one could not end
  }
  stop_ = {Step::kKill, Clock::now() + options_.grace};
}

void Workers::kill() {
  for (const auto& worker : workers_)
    if (!worker->status) ::kill(-worker->child.process, SIGKILL);
  stop_ = {Step::kKill, Time::max()};
}

void Workers::tick(Time now) {
  if (const bool reading = !console_.is_full(); reading != reading_) {
    reading_ = reading;
    for (const auto& worker : workers_) {
      for (const Descriptor* pipe : {&worker->child.output, &worker->child.error})
        if (*pipe) poller_.change(pipe->get(), reading ? POLLIN : 0);
    }
  }
  if (now < stop_.at) return;
  if (stop_.next == Step::kTerminate) {
    stop(/*gentle=*/false);
  } else {
    kill();
  }
}

std::optional<Failed> Workers::take_failure() {
  if (reported_) return std::nullopt;
  const Worker* first = nullptr;
  for (const auto& worker : workers_) {
    if (!worker->status || code_of(*worker->status) == 0) continue;
    // Who died of a signal is rather the cause than who noticed it at the same moment.
    if (first == nullptr || (!WIFSIGNALED(*first->status) && WIFSIGNALED(*worker->status)))
      first = worker.get();
  }
  if (first == nullptr) return std::nullopt;
  reported_ = true;
  return Failed{first->rank, code_of(*first->status), describe(*first)};
}

std::string Workers::describe(const Worker& worker) const {
  const int status = *worker.status;
  const std::string how =
      WIFSIGNALED(status)
          ? fmt::format("SIG{} ({})", sigabbrev_np(WTERMSIG(status)) ?: "?", WTERMSIG(status))
          : fmt::format("exit code {}", WEXITSTATUS(status));
  if (interrupted_ || code_of(status) == kStopped)
    return fmt::format("rank {} stopped on request with {}", worker.rank, how);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  std::string text = fmt::format(
      "expected all ranks to end with 0, got {} of rank {} after {:.1f} s ({}, process {})", how,
      worker.rank, worker.seconds, host, worker.child.process);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    text += ". Hint: the kernel kills so where memory runs out; see dmesg";
  const auto& lines =
      worker.error_tail.lines().empty() ? worker.output_tail.lines() : worker.error_tail.lines();
  if (!lines.empty()) text += fmt::format(". The last lines of rank {}:", worker.rank);
  for (const auto& tail : lines) text += fmt::format("\n    {}", tail);
  return text;
}

}  // namespace qianli::launch
