#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <new>

#include "apps/qianli/command.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"

namespace {

int run(int argc, char** argv) {
  using namespace qianli;
  CLI::App app{"Qianli: a language model from raw text to a running model, in one program.", "qianli"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "qianli " QIANLI_VERSION);
  app::add_commands(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return static_cast<int>(ExitCode::kUsage);
  }
}

}  // namespace

int main(int argc, char** argv) {
  qianli::install_stop_handler();
  try {
    return run(argc, argv);
  } catch (const qianli::Error& error) {
    qianli::log::say(error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    qianli::log::say("[memory] expected enough memory, got none. Hint: lower train.micro_batch_size or the model's size.");
    return static_cast<int>(qianli::ExitCode::kMemory);
  } catch (const std::exception& error) {
    qianli::log::say(fmt::format("[internal] {}", error.what()));
    return 1;
  }
}
