#include "qianli/serve/server.h"

#include <fmt/core.h>
#include <httplib.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "qianli/base/log.h"
#include "qianli/serve/answer.h"
#include "qianli/serve/api_error.h"
#include "qianli/serve/chat_page.h"
#include "qianli/serve/client_socket.h"
#include "qianli/serve/job.h"
#include "qianli/serve/metrics.h"

namespace qianli::serve {
namespace {

constexpr const char* kJson = "application/json";
constexpr std::chrono::milliseconds kLookAtClient{250};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Of equal length whatever the first difference, so that the time tells nothing about the key.
bool equal_secret(const std::string& a, const std::string& b) {
  unsigned char different = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < a.size(); ++i)
    different |= static_cast<unsigned char>(a[i] ^ b[b.empty() ? 0 : i % b.size()]);
  return different == 0;
}

// Of what the HTTP library refuses by itself.
const char* meaning_of(int status) {
  if (status == 404) return "expected one of the server's paths, got another";
  if (status == 413) return "expected a smaller body";
  if (status == 414) return "expected a shorter path";
  return "expected an HTTP request that can be understood";
}

// A share of the texts that may be under way.
class Admission {
 public:
  explicit Admission(int64_t most) : most_(most) {}
  bool enter(int64_t count) {
    int64_t now = taken_.load();
    do {
      if (now + count > most_) return false;
    } while (!taken_.compare_exchange_weak(now, now + count));
    return true;
  }
  void leave(int64_t count) { taken_ -= count; }

 private:
  const int64_t most_;
  std::atomic<int64_t> taken_ = 0;
};

class Ticket {
 public:
  Ticket(Admission& admission, int64_t count) : admission_(admission), count_(count) {
    if (admission.enter(count)) return;
    throw ApiError(429, "expected fewer requests at a time; try again in a moment", {},
                   "rate_limit_exceeded");
  }
  ~Ticket() { admission_.leave(count_); }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;

 private:
  Admission& admission_;
  int64_t count_;
};

// A request under way: it holds its ticket and its job until the last byte is written.
struct Exchange {
  AnswerHead head;
  int64_t n;
  bool log_probs, include_usage;
  Clock::time_point begin = Clock::now();
  std::unique_ptr<Ticket> ticket;
  std::unique_ptr<Job> job;
  std::vector<Finish> finishes;
  std::vector<bool> begun;
  std::optional<double> first_seconds;
  ClientSocket client;
};

}  // namespace

class Server::Impl {
 public:
  Impl(Backend& backend, const ServerOptions& options)
      : backend_(backend), options_(options), admission_(options.most_texts) {
    set_up();
    port_ = options.port == 0
                ? http_.bind_to_any_port(options.host)
                : (http_.bind_to_port(options.host, options.port) ? options.port : -1);
    if (port_ > 0) return;
    throw ConfigError("serve",
                      fmt::format("expected a free address, got {}:{}", options.host, options.port),
                      "choose another --port");
  }

  int port() const { return port_; }
  void run() {
    if (!stopping_) http_.listen_after_bind();  // returns when all connections are done
    const std::lock_guard lock(mutex_);
    done_ = true;
    drained_.notify_all();
  }

  void stop() {
    const std::lock_guard lock(mutex_);
    if (stopping_.exchange(true)) return;
    deadline_ = std::thread([this] { wait_for_the_end(); });
    http_.stop();
  }

  ~Impl() {
    stop();
    std::thread last;
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
      drained_.notify_all();
      last.swap(deadline_);
    }
    if (last.joinable()) last.join();
  }

 private:
  void wait_for_the_end() {
    std::unique_lock lock(mutex_);
    if (!drained_.wait_for(lock, options_.drain_time, [this] { return done_; })) abandon_ = true;
  }

  void set_up() {
    const auto threads = static_cast<size_t>(options_.most_texts) + 16;
    http_.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
    http_.set_payload_max_length(options_.most_body_bytes);
    http_.set_read_timeout(options_.patience);
    http_.set_write_timeout(options_.patience);
    http_.set_tcp_nodelay(true);
    http_.set_default_headers({{"X-Content-Type-Options", "nosniff"}});
    http_.set_exception_handler([](const auto&, auto& response, std::exception_ptr) {
      answer_error(response, ApiError(500, "internal error"));
    });
    http_.set_error_handler([](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty()) return;
      answer_error(response, ApiError(response.status, meaning_of(response.status)));
    });
    http_.Get("/", [](const auto&, auto& response) {
      response.set_header("Content-Security-Policy", kChatPagePolicy);
      response.set_content(kChatPage, "text/html; charset=utf-8");
    });
    http_.Get("/health", [this](const auto&, auto& response) {
      response.status = stopping_ ? 503 : 200;
      response.set_content(stopping_ ? R"({"status":"stopping"})" : R"({"status":"ok"})", kJson);
    });
    get("/metrics", [this](const auto&, auto& response) {
      response.set_content(metrics_.text(backend_.load()), "text/plain; version=0.0.4");
    });
    get("/v1/models", [this](const auto&, auto& response) {
      response.set_content(model_list(backend_.card()), kJson);
    });
    get("/v1/models/(.+)", [this](const auto& request, auto& response) {
      const auto adapter = backend_.card().find(request.matches[1].str());
      if (!adapter) throw ApiError(404, "expected another model", "model", "model_not_found");
      response.set_content(model_object(backend_.card(), *adapter), kJson);
    });
    post("/v1/completions",
         [this](const auto& request, auto& response) { complete(request, response); });
    post("/v1/chat/completions",
         [this](const auto& request, auto& response) { chat(request, response); });
  }

  using Handler = std::function<void(const httplib::Request&, httplib::Response&)>;
  void get(const std::string& path, Handler handler) {
    http_.Get(path, guarded(path, std::move(handler)));
  }
  void post(const std::string& path, Handler handler) {
    http_.Post(path, guarded(path, std::move(handler)));
  }

  // With the key looked at, and what is thrown as an answer.
  Handler guarded(const std::string& path, Handler handler) {
    return [this, path, handler = std::move(handler)](const httplib::Request& request,
                                                      httplib::Response& response) {
      response.status = 200;
      try {
        check_key(request);
        handler(request, response);
      } catch (const ApiError& error) {
        answer_error(response, error);
      } catch (const Error& error) {
        answer_error(response, to_api_error(error));
      }
      metrics_.count_request(path, response.status);
    };
  }

  static void answer_error(httplib::Response& response, const ApiError& error) {
    response.status = error.status;
    if (error.status == 429 || error.status == 503) response.set_header("Retry-After", "1");
    response.set_content(to_json(error), kJson);
  }

  void check_key(const httplib::Request& request) const {
    if (options_.api_key.empty()) return;
    const std::string given = request.get_header_value("Authorization");
    if (equal_secret(given, "Bearer " + options_.api_key)) return;
    throw ApiError(401, "expected the server's key in the header 'Authorization: Bearer KEY'", {},
                   "invalid_api_key");
  }

  void complete(const httplib::Request& http, httplib::Response& response) {
    const CompletionRequest request = parse_completion(http.body, backend_.card(), options_.limits);
    std::vector<Work> works;
    for (const auto& prompt : request.prompts) {
      const auto* ids = std::get_if<std::vector<int64_t>>(&prompt);
      add_works(works, request, ids ? *ids : backend_.encode(std::get<std::string>(prompt)));
    }
    answer(http, response, Endpoint::kCompletions, request, std::move(works));
  }

  void chat(const httplib::Request& http, httplib::Response& response) {
    const ChatRequest request = parse_chat(http.body, backend_.card(), options_.limits);
    std::vector<Work> works;
    add_works(works, request,
              backend_.encode_chat(request.messages, request.tools, request.variables));
    answer(http, response, Endpoint::kChat, request, std::move(works));
  }

  // n texts of one prompt, each with a seed of its own.
  static void add_works(std::vector<Work>& works, const CommonRequest& request,
                        const std::vector<int64_t>& prompt) {
    const uint64_t seed = request.work.sampling.seed.value_or(std::random_device()());
    for (int64_t i = 0; i < request.n; ++i) {
      Work& work = works.emplace_back(request.work);
      work.prompt = prompt;
      work.sampling.seed = seed + static_cast<uint64_t>(i);
    }
  }

  void answer(const httplib::Request& http, httplib::Response& response, Endpoint endpoint,
              const CommonRequest& request, std::vector<Work> works) {
    if (stopping_) throw ApiError(503, "the server is stopping");
    const auto count = works.size();
    const auto exchange = std::make_shared<Exchange>(
        Exchange{.head = make_head(endpoint, backend_.card().name(request.work.adapter)),
                 .n = request.n,
                 .log_probs = request.work.top_log_probs >= 0,
                 .include_usage = request.include_usage,
                 .ticket = std::make_unique<Ticket>(admission_, static_cast<int64_t>(count)),
                 .client = ClientSocket::of(http.remote_addr, http.remote_port)});
    exchange->job = std::make_unique<Job>(backend_, std::move(works));
    exchange->finishes.resize(count);
    exchange->begun.resize(count);
    if (!request.stream) return answer_whole(response, *exchange);
    response.set_header("Cache-Control", "no-cache");
    response.set_chunked_content_provider(
        "text/event-stream",
        [this, exchange](size_t, httplib::DataSink& sink) { return stream(*exchange, sink); });
  }

  void look_at(Exchange& exchange, const Job::Item& item) {
    if (!exchange.first_seconds) exchange.first_seconds = seconds_since(exchange.begin);
    if (item.piece.finish) exchange.finishes[item.index] = *item.piece.finish;
    if (exchange.job->finished())
      metrics_.time_answer(*exchange.first_seconds, seconds_since(exchange.begin));
  }

  void answer_whole(httplib::Response& response, Exchange& exchange) {
    std::vector<Choice> choices(exchange.finishes.size());
    while (!exchange.job->finished()) {
      auto item = exchange.job->next(kLookAtClient);
      if (abandon_) throw ApiError(503, "the server is stopping");
      if (!item && exchange.client.has_left()) {
        metrics_.count_abandoned();
        throw ApiError(499, "the client left");
      }
      if (!item) continue;
      look_at(exchange, *item);
      choices[item->index].add(std::move(item->piece));
    }
    for (const Choice& choice : choices) {
      if (choice.finish.reason == "error") throw ApiError(500, choice.finish.error);
    }
    response.set_content(whole_answer(exchange.head, choices, exchange.n, exchange.log_probs),
                         kJson);
  }

  // Writes the next piece. False ends the connection.
  bool stream(Exchange& exchange, httplib::DataSink& sink) {
    const auto write = [&](const std::string& text) {
      return sink.write(text.data(), text.size());
    };
    const auto item = exchange.job->next(kLookAtClient);
    if (abandon_) {
      write(error_event(to_json(ApiError(503, "the server is stopping"))));
      return false;
    }
    if (!item) {
      if (!exchange.client.has_left()) return true;
      metrics_.count_abandoned();
      return false;
    }
    look_at(exchange, *item);
    bool there = true;
    if (exchange.head.endpoint == Endpoint::kChat && !exchange.begun[item->index])
      there = write(first_event(exchange.head, item->index));
    exchange.begun[item->index] = true;
    const bool failed = item->piece.finish && item->piece.finish->reason == "error";
    there = there && write(failed ? error_event(to_json(ApiError(500, item->piece.finish->error)))
                                  : piece_event(exchange.head, item->index, item->piece,
                                                exchange.log_probs));
    if (there && exchange.job->finished()) {
      if (exchange.include_usage)
        there = write(usage_event(exchange.head, Usage::of(exchange.finishes, exchange.n)));
      there = there && write(kLastEvent);
      sink.done();
      exchange.ticket.reset();
    }
    if (!there) metrics_.count_abandoned();
    return there;
  }

  Backend& backend_;
  ServerOptions options_;
  Admission admission_;
  Metrics metrics_;
  httplib::Server http_;
  int port_ = -1;
  std::atomic<bool> stopping_ = false, abandon_ = false;
  std::mutex mutex_;
  std::condition_variable drained_;
  bool done_ = false;
  std::thread deadline_;
};

Server::Server(Backend& backend, const ServerOptions& options)
    : impl_(std::make_unique<Impl>(backend, options)) {}
Server::~Server() = default;
int Server::port() const { return impl_->port(); }
void Server::run() { impl_->run(); }
void Server::stop() { impl_->stop(); }

}  // namespace qianli::serve
