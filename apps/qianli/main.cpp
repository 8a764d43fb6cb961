#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <system_error>

#include "apps/qianli/command.h"
#include "apps/qianli/output.h"
#include "apps/qianli/usage.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/base/version.h"

namespace {

int run(int argc, char** argv) {
  using namespace qianli;
  CLI::App app{"Qianli: a language model from raw text to a running model, in one program.",
               "qianli"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("qianli ") + version());
  app::add_commands(app, app::take_job(argc, argv));
  int code = 0;
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    code = app.exit(done);
  } catch (const CLI::ParseError& error) {
    app::throw_usage_error(app, argc, argv, error);
  } catch (const app::EndWith& end) {
    code = end.code;
  }
  app::finish_output();
  return code;
}

int run_and_report(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const qianli::Error& error) {
    qianli::log::say(error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    qianli::log::say(
        "[memory] expected enough memory, got none. Hint: lower train.micro_batch_size or the "
        "model's size.");
    return static_cast<int>(qianli::ExitCode::kMemory);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::broken_pipe)
      return 0;  // the reader has all it wanted (`| head`)
    qianli::log::say(fmt::format("[system] {}", error.what()));
    return static_cast<int>(qianli::ExitCode::kData);
  } catch (const std::exception& error) {
    qianli::log::say(fmt::format("[internal] {}", error.what()));
    return qianli::app::kDefect;
  }
}

// Ends the process without destroying static objects, for reasons that docs/decisions.md tells. All
// that is ours is closed by now: the commands own their files and threads.
[[noreturn]] void leave(int code) {
  std::cout.flush();
  std::fflush(nullptr);
  ::_exit(code);
}

}  // namespace

int main(int argc, char** argv) {
  qianli::app::open_standard_streams();
  qianli::install_stop_handler();
  leave(run_and_report(argc, argv));
}
