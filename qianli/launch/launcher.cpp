#include "qianli/launch/launcher.h"

#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/launch/client.h"
#include "qianli/launch/server.h"
#include "qianli/launch/signals.h"

namespace qianli::launch {
namespace {

constexpr auto kFarewell = std::chrono::seconds(5);
constexpr int kUnavailable = static_cast<int>(ExitCode::kUnavailable);

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

class Launcher {
 public:
  explicit Launcher(const LaunchOptions& options)
      : options_(options),
        console_(poller_, options.messages, options.quiet),
        workers_(poller_, console_, options.workers) {
    poller_.watch(signals_->fd(), POLLIN, [this] { on_signal(signals_->take()); });
    if (!serve()) join();
  }

  int run() {
    throw_if_stopped("launch");  // before the signals were watched
    for (step(Clock::now()); !exit_code_; step(Clock::now())) poller_.wait(deadline());
    const Time until = Clock::now() + kFarewell;
    client_.reset();
    while (server_ && !server_->empty() && Clock::now() < until) {
      poller_.wait(std::min(until, server_->deadline()));
      server_->exchange(Clock::now());
      server_->tick(Clock::now());
    }
    poller_.forget(signals_->fd());
    signals_.reset();  // from here on they are the program's again
    console_.flush();
    return *exit_code_;
  }

 private:
  Hello hello() const {
    return {.job = options_.workers.job,
            .nodes = options_.nodes,
            .processes = options_.workers.processes,
            .node_rank = options_.node_rank,
            .host = host_name()};
  }

  // Makes this the node that the others meet at. False: it is another one.
  bool serve() {
    Descriptor listener;
    if (options_.nodes > 1) {
      if (options_.node_rank > 0) return false;
      if (options_.node_rank < 0 && !is_this_machine(options_.rendezvous_host)) return false;
      listener = listen_at(options_.rendezvous_host, options_.rendezvous_port);
      if (!listener && options_.node_rank < 0) return false;
      if (!listener)
        throw ConfigError(
            "launch",
            fmt::format("expected port {} to be free, got one in use", options_.rendezvous_port),
            "another job runs here, or another launcher with --node-rank 0");
    }
    coordinator_ = std::make_unique<Coordinator>(
        Coordinator::Options{
            .job = options_.workers.job,
            .nodes = options_.nodes,
            .max_restarts = options_.workers.max_restarts,
            .master_address = options_.nodes > 1 ? options_.rendezvous_host : "127.0.0.1",
            .free_port = [this] { return port_ = free_port(port_); },
            .start_timeout = options_.start_timeout,
            .timeout = options_.timeout},
        Clock::now());
    server_ = std::make_unique<Server>(poller_, std::move(listener), *coordinator_);
    tell(hello());
    return true;
  }

  void join() {
    client_ = std::make_unique<Client>(poller_,
                                       Client::Options{.host = options_.rendezvous_host,
                                                       .port = options_.rendezvous_port,
                                                       .hello = hello(),
                                                       .start_timeout = options_.start_timeout,
                                                       .timeout = options_.timeout},
                                       Clock::now());
  }

  void tell(const Message& message) {
    if (coordinator_) coordinator_->receive(Coordinator::kLocal, message, Clock::now());
    if (client_) client_->send(message, Clock::now());
  }

  Time deadline() const {
    Time next = workers_.deadline();
    if (coordinator_) next = std::min({next, coordinator_->deadline(), server_->deadline()});
    return client_ ? std::min(next, client_->deadline()) : next;
  }

  void step(Time now) {
    workers_.tick(now);
    if (auto failed = workers_.take_failure()) tell(*failed);
    if (started_ && !workers_.running()) {
      started_ = false;
      tell(Ended{});
    }
    if (coordinator_) {
      coordinator_->tick(now);
      server_->tick(now);
    }
    if (client_) client_->tick(now);
    deliver(now);
    if (pending_exit_ && !workers_.running()) exit_code_ = killed_ ? 128 + SIGINT : *pending_exit_;
  }

  // What comes in may make more go out on the same node.
  void deliver(Time now) {
    for (;;) {
      auto messages = coordinator_ ? server_->exchange(now) : client_->take_messages();
      if (coordinator_)
        for (const auto& notice : coordinator_->take_notices()) console_.say(notice);
      if (messages.empty()) break;
      for (const Message& message : messages) on_message(message);
    }
    if (client_ && client_->lost() && !pending_exit_) give_up(kUnavailable, *client_->lost());
  }

  void on_message(const Message& message) {
    if (const auto* start = std::get_if<Start>(&message)) {
      workers_.start(*start);
      started_ = true;
    } else if (const auto* stop = std::get_if<Stop>(&message)) {
      if (!stop->text.empty()) console_.say(stop->text);
      workers_.stop(stop->gentle);
    } else if (const auto* signal = std::get_if<Signal>(&message)) {
      if (signal->number == SIGKILL) {
        workers_.kill();
      } else if (passed_on_.insert(signal->number).second) {
        console_.say(fmt::format("SIG{} from another node, passed on to the ranks",
                                 sigabbrev_np(signal->number) ?: "?"));
        workers_.send(signal->number);
      }
    } else if (const auto* exit = std::get_if<Exit>(&message)) {
      give_up(exit->code, exit->text);
    }
  }

  void give_up(int code, const std::string& text) {
    if (!text.empty()) console_.say(text);
    if (!pending_exit_) pending_exit_ = code;
    workers_.stop(/*gentle=*/false);
  }

  void on_signal(int signal) {
    if (signal == 0) return;
    if (signal == SIGUSR1 || signal == SIGUSR2) return workers_.send(signal);
    if (signal == SIGINT && ++interrupts_ > 1) {
      console_.say("second SIGINT: the ranks are killed");
      killed_ = true;
      workers_.kill();
      tell(Signal{SIGKILL});
      if (!pending_exit_) pending_exit_ = 128 + SIGINT;
      return;
    }
    if (!passed_on_.insert(signal).second) return;
    if (workers_.running()) {
      console_.say(fmt::format("SIG{} passed on to the ranks{}", sigabbrev_np(signal),
                               signal == SIGINT ? "; a second one kills them" : ""));
      workers_.send(signal);
    } else if (client_ && !client_->connected()) {
      pending_exit_ = 128 + signal;
    }
    tell(Signal{signal});
  }

  const LaunchOptions& options_;
  // First: a signal that comes while the rest is made is not lost.
  std::optional<SignalWatch> signals_{std::in_place};
  Poller poller_;
  Console console_;
  Workers workers_;
  // One of them: this is node 0, or another one.
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Client> client_;
  int port_ = 0;  // where the ranks met last
  bool started_ = false;
  std::set<int> passed_on_;
  int interrupts_ = 0;
  bool killed_ = false;
  std::optional<int> pending_exit_;  // as soon as no process is left
  std::optional<int> exit_code_;
};

}  // namespace

int launch(const LaunchOptions& options) { return Launcher(options).run(); }

}  // namespace qianli::launch
