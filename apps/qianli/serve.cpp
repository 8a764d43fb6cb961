#include <CLI/CLI.hpp>
#include <memory>

#include "apps/qianli/model_commands.h"
#include "apps/qianli/model_options.h"
#include "qianli/base/error.h"

namespace qianli::app {
namespace {

void check_host(const ServeArguments& arguments, bool allow_anyone) {
  const auto& host = arguments.host;
  const bool loopback = host.starts_with("127.") || host == "localhost" || host == "::1";
  if (loopback || allow_anyone || !arguments.api_key.empty()) return;
  throw ConfigError("serve", "expected --api-key with --host " + host + ", got none",
                    "whoever reaches this machine could use the model; --allow-anyone permits it");
}

void add_limits(CLI::App& command, ServeArguments& arguments, double& cache_gigabytes) {
  const CLI::Range positive(int64_t{1}, int64_t{1} << 20);
  command.add_option("--max-sequences", arguments.max_sequences, "Texts generated at a time")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      .add_option("--max-waiting", arguments.max_waiting,
                  "Texts that wait for their turn; beyond, requests are answered 429")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command
      .add_option("--max-tokens", arguments.max_tokens,
                  "Most tokens of an answer; 0: the model's context")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--cache-gb", cache_gigabytes,
                  "Memory for keys and values; 0: up to a third of the machine's")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--drain-seconds", arguments.drain_seconds,
                  "That requests under way have to end when the server is stopped")
      ->check(positive)
      ->capture_default_str();
}

}  // namespace

void add_serve(CLI::App& app) {
  auto arguments = std::make_shared<ServeArguments>();
  auto allow_anyone = std::make_shared<bool>(false);
  auto cache_gigabytes = std::make_shared<double>(0.0);
  CLI::App* command =
      app.add_subcommand("serve", "Answer over HTTP as OpenAI's API does, and with a chat page.");
  command->footer(
      "/v1/chat/completions, /v1/completions, /v1/models, /health, /metrics, and a chat page at "
      "/.\n"
      "SIGTERM and Ctrl-C end it when the requests under way are answered; the exit code is 0.");
  add_model_options(*command, arguments->model);
  add_adapter_option(*command, arguments->model.adapters, /*named=*/true);
  add_speculate_option(*command, arguments->model);
  command->add_option("--host", arguments->host, "Address to listen on")->capture_default_str();
  command->add_option("--port", arguments->port, "0: any that is free")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--name", arguments->name,
                      "Of the model, for clients; the folder's where it is not given");
  command->add_option("--api-key", arguments->api_key, "That requests to /v1 and /metrics bring")
      ->envname("QIANLI_API_KEY");
  command->add_flag("--allow-anyone", *allow_anyone, "Listen beyond this machine without a key");
  command->add_option("--template", arguments->template_name,
                      "A named chat template, or FILE.json:NAME, in the place of the model's own");
  add_limits(*command, *arguments, *cache_gigabytes);
  command->callback([arguments, allow_anyone, cache_gigabytes] {
    check_host(*arguments, *allow_anyone);
    arguments->cache_bytes = static_cast<uint64_t>(*cache_gigabytes * 1e9);
    engine().serve(*arguments);
  });
}

}  // namespace qianli::app
