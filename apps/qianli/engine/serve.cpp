#include <fmt/core.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "apps/qianli/engine/commands.h"
#include "apps/qianli/engine/generate_output.h"
#include "apps/qianli/engine/sampling.h"
#include "apps/qianli/engine/serve_backend.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/serve/server.h"

namespace qianli::app {
namespace {

// Stops the server when a signal asks for it: a signal handler itself could not.
class SignalWatch {
 public:
  explicit SignalWatch(serve::Server& server) : thread_([this, &server] { watch(server); }) {}
  ~SignalWatch() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  void watch(serve::Server& server) {
    constexpr std::chrono::milliseconds kLook{100};
    std::unique_lock lock(mutex_);
    while (!over_ && stop_signal() == 0) wake_.wait_for(lock, kLook);
    if (over_) return;
    log::say("stopping: requests under way are answered first");
    server.stop();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace

void run_serve(const ServeArguments& arguments) {
  const auto model = open_with_tokenizer(arguments.model);
  EngineBackend backend(*model, arguments);
  serve::Server server(backend, {.host = arguments.host,
                                 .port = arguments.port,
                                 .api_key = arguments.api_key,
                                 .limits = {.most_tokens = arguments.max_tokens},
                                 .most_texts = arguments.max_sequences + arguments.max_waiting,
                                 .drain_time = std::chrono::seconds(arguments.drain_seconds)});
  log::say(fmt::format("{}: up to {} texts at a time, {} blocks of keys and values",
                       backend.card().id, arguments.max_sequences, backend.load().blocks));
  // On standard output, for scripts that let --port 0 choose.
  Output().write(fmt::format("http://{}:{}/\n", arguments.host, server.port()));
  const SignalWatch watch(server);
  server.run();
}

}  // namespace qianli::app
