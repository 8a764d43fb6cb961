// The HTTP server: OpenAI's /v1/completions, /v1/chat/completions and /v1/models, /health,
// /metrics, and a chat page at /.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "qianli/serve/backend.h"
#include "qianli/serve/request.h"

namespace qianli::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;      // 0: any free one
  std::string api_key;  // of /v1 and /metrics; empty: none is asked for
  RequestLimits limits = {};
  // Texts under way, waiting ones included; beyond, requests are answered 429.
  int64_t most_texts = 64;
  size_t most_body_bytes = size_t{8} << 20;
  std::chrono::seconds patience{10};    // with a client that sends or reads slowly
  std::chrono::seconds drain_time{30};  // that requests under way have to end when stopped
};

class Server {
 public:
  // `backend` must outlive the server. Throws ConfigError where the address cannot be listened on.
  Server(Backend& backend, const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  // Serves until stop(), then until requests under way have ended, or for drain_time.
  void run();
  // From any thread: no further connections.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qianli::serve
