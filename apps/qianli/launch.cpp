#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/qianli/command.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/threads.h"
#include "qianli/launch/child.h"
#include "qianli/launch/cores.h"
#include "qianli/launch/launcher.h"

namespace qianli::app {
namespace {

namespace fs = std::filesystem;
using launch::Clock;
using launch::LaunchOptions;

struct Words {
  std::string processes = "auto";
  int nodes = 1, node_rank = -1;
  std::string rendezvous, job = "qianli", log_folder;
  int max_restarts = 0;
  double grace = 15, start_timeout = 600, timeout = 60;
  bool bind_cores = false;
  // msrun's
  std::optional<int> workers, local_workers;
  std::string master = "127.0.0.1", join = "False", bind_core = "False";
  int master_port = 8118;
  bool has_rendezvous = false, has_nodes = false, has_processes = false, has_master = false;
};

bool is_msrun(const Words& words) { return words.workers || words.local_workers; }

Clock::duration duration(double seconds) {
  if (seconds < 0) return Clock::duration::max();
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Python's literals, as msrun takes them.
bool truth(const std::string& option, const std::string& value) {
  if (value == "True" || value == "true" || value == "1") return true;
  if (value == "False" || value == "false" || value == "0") return false;
  throw ConfigError("launch", fmt::format("expected {} True or False, got '{}'", option, value));
}

int count_processes(const std::string& text) {
  if (text == "auto") {
    const int devices = launch::accelerators(launch::process_environment());
    log::say(devices > 0 ? fmt::format("[launch] {} accelerators: as many processes", devices)
                         : "[launch] no accelerator: one process");
    return std::max(1, devices);
  }
  int count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count < 1 ||
      count > launch::kMostProcesses) {
    throw ConfigError("launch",
                      fmt::format("expected --nproc 'auto' or a number up to {}, got '{}'",
                                  launch::kMostProcesses, text));
  }
  return count;
}

void take_rendezvous(const std::string& text, LaunchOptions& options) {
  const size_t colon = text.rfind(':');
  std::string host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (colon != std::string::npos) {
    const std::string digits = text.substr(colon + 1);
    int port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port < 1 || port > 65535)
      host.clear();
    options.rendezvous_port = port;
  }
  if (host.empty())
    throw ConfigError("launch", fmt::format("expected --rdzv HOST:PORT, got '{}'", text));
  options.rendezvous_host = host;
}

// msrun knows the number of workers, not that of nodes.
void take_msrun(const Words& words, LaunchOptions& options) {
  constexpr int kDefault = 8;
  const int all = words.workers.value_or(kDefault), here = words.local_workers.value_or(kDefault);
  if (words.has_processes || words.has_nodes || words.has_rendezvous)
    throw ConfigError("launch",
                      "expected msrun's options or --nproc, --nnodes and --rdzv, got both",
                      "--worker_num is the product of --nnodes and --nproc");
  if (here > all || all % here != 0) {
    throw ConfigError(
        "launch",
        fmt::format("expected --worker_num {} to be a multiple of --local_worker_num {}", all,
                    here),
        "both are 8 unless given");
  }
  options.workers.processes = here;
  options.nodes = all / here;
  options.rendezvous_host = words.master;
  options.rendezvous_port = words.master_port;
  options.workers.bind_cores = words.bind_cores || truth("--bind_core", words.bind_core);
  options.workers.log_folder = words.log_folder.empty() ? "." : words.log_folder;
  options.workers.log_prefix = "worker_";
  options.messages = options.workers.log_folder / "scheduler.log";
  options.quiet = !truth("--join", words.join);
}

void take_own(const Words& words, LaunchOptions& options) {
  for (const auto* value : {&words.join, &words.bind_core}) {
    if (*value != "False")
      throw ConfigError("launch", "expected --worker_num beside --join and --bind_core, got none",
                        "they are msrun's options; --bind-cores is the one of this command");
  }
  options.workers.processes = count_processes(words.processes);
  options.nodes = words.nodes;
  options.workers.bind_cores = words.bind_cores;
  options.workers.log_folder = words.log_folder;
  if (words.has_rendezvous) {
    take_rendezvous(words.rendezvous, options);
  } else if (words.has_master) {
    options.rendezvous_host = words.master;
    options.rendezvous_port = words.master_port;
  } else if (words.nodes > 1) {
    throw ConfigError("launch", "expected --rdzv HOST:PORT of node 0 beside --nnodes, got none");
  }
}

// Every process its share, unless the user has decided.
void share_cores(LaunchOptions& options) {
  const bool given = std::getenv("OMP_NUM_THREADS") || std::getenv("QIANLI_THREADS");
  if (options.workers.processes == 1 || given) return;
  options.workers.threads = std::max(1, available_cores() / options.workers.processes);
  log::say(fmt::format("[launch] OMP_NUM_THREADS={} for each of {} processes ({} cores)",
                       options.workers.threads, options.workers.processes, available_cores()));
}

LaunchOptions resolve(const Words& words, const std::vector<std::string>& job,
                      const std::vector<std::string>& commands) {
  if (job.empty())
    throw ConfigError("launch", "expected a command behind --, got none",
                      "qianli launch --nproc 2 -- pretrain CONFIG.yaml");
  LaunchOptions options;
  (is_msrun(words) ? take_msrun : take_own)(words, options);
  if (words.node_rank >= options.nodes)
    throw ConfigError("launch", fmt::format("expected --node-rank below {}, got {}", options.nodes,
                                            words.node_rank));
  options.node_rank = options.nodes == 1 ? 0 : words.node_rank;
  options.start_timeout = duration(words.start_timeout);
  options.timeout = duration(words.timeout);
  options.workers.grace = duration(words.grace);
  options.workers.job = words.job;
  options.workers.max_restarts = words.max_restarts;
  options.workers.arguments = job;
  if (std::ranges::find(commands, job.front()) != commands.end()) {
    options.workers.program = fs::read_symlink("/proc/self/exe");
    options.workers.arguments.insert(options.workers.arguments.begin(), "qianli");
  } else {
    options.workers.program = launch::find_program(job.front());
  }
  if (!options.workers.log_folder.empty()) {
    std::error_code error;
    fs::create_directories(options.workers.log_folder, error);
    if (error)
      throw ConfigError("launch",
                        fmt::format("expected to make the folder {}, got: {}",
                                    options.workers.log_folder.string(), error.message()));
  }
  share_cores(options);
  return options;
}

// msrun without --join: the job goes on by itself. False in the process that returns to the user.
bool go_to_background(const LaunchOptions& options) {
  std::cout.flush();
  const pid_t process = ::fork();
  if (process < 0) throw UnavailableError("launch", "cannot start a process");
  if (process > 0) {
    std::cout << fmt::format(
        "launcher: process {} (kill {} ends the job)\nits messages: {}\nranks: {}*.log\n", process,
        process, options.messages.string(),
        (options.workers.log_folder / options.workers.log_prefix).string());
    return false;
  }
  ::setsid();
  const int nothing = ::open("/dev/null", O_RDWR);
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(nothing, stream);
  if (nothing > STDERR_FILENO) ::close(nothing);
  log::to_file(options.messages);
  return true;
}

void run(const Words& words, const std::vector<std::string>& job,
         const std::vector<std::string>& commands) {
  const LaunchOptions options = resolve(words, job, commands);
  if (options.quiet && !go_to_background(options)) return;
  throw EndWith{launch::launch(options)};
}

std::vector<std::string> names_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

void add_own_options(CLI::App& command, Words& words) {
  command.add_option("--nproc,--nproc-per-node,--nproc_per_node", words.processes,
                     "Processes on this node, or auto: one per accelerator, else one [auto]");
  command.add_option("--nnodes", words.nodes, "Nodes; each runs this command [1]")
      ->check(CLI::Range(1, launch::kMostNodes));
  command
      .add_option("--node-rank,--node_rank", words.node_rank,
                  "Number of this node [by order of arrival; 0 is the one --rdzv names]")
      ->check(CLI::Range(-1, launch::kMostNodes - 1));
  command.add_option("--rdzv", words.rendezvous,
                     "HOST:PORT of node 0, whose launcher listens there [port 29400]");
  command.add_option("--job-id", words.job, "Name of the job; nodes of another one are refused")
      ->check([](const std::string& name) {
        return name.empty() || name.size() > 200 ? std::string("expected 1 to 200 bytes")
                                                 : std::string();
      });
  command
      .add_option("--max-restarts,--max_restarts", words.max_restarts,
                  "How often all ranks are started again when one fails [0]")
      ->check(CLI::Range(0, 1000000));
  command.add_option("--log-dir,--log_dir", words.log_folder,
                     "Folder for rank_N.log, the output of each rank (appended)");
  command.add_option("--grace", words.grace, "Seconds between SIGTERM and SIGKILL [15]")
      ->check(CLI::Range(0.0, 1e6));
  command
      .add_option("--start-timeout,--cluster_time_out", words.start_timeout,
                  "Seconds for all nodes to come; negative: forever [600]")
      ->check(CLI::Range(-1e6, 1e6));
  command
      .add_option("--timeout", words.timeout,
                  "Seconds after which a node that is not heard of is lost [60]")
      ->check(CLI::Range(0.1, 1e6));
  command.add_flag("--bind-cores", words.bind_cores, "Each process gets its own part of the cores");
}

void add_msrun_options(CLI::App& command, Words& words) {
  auto* group = command.add_option_group("msrun", "The same in msrun's words");
  group->add_option("--worker_num", words.workers, "Processes of the whole job [8]")
      ->check(CLI::Range(1, 1 << 28));
  group->add_option("--local_worker_num", words.local_workers, "Processes on this node [8]")
      ->check(CLI::Range(1, launch::kMostProcesses));
  group->add_option("--master_addr,--master-addr", words.master, "Host of node 0 [127.0.0.1]");
  group->add_option("--master_port,--master-port", words.master_port, "Port of node 0 [8118]")
      ->check(CLI::Range(1, 65535));
  group->add_option("--join", words.join,
                    "True: wait for the job; False: leave it in the background [False]");
  group->add_option("--bind_core", words.bind_core, "True: as --bind-cores [False]");
}

}  // namespace

std::vector<std::string> take_job(int& argc, char** argv) {
  const auto end = argv + argc;
  if (argc < 2 || std::string_view(argv[1]) != "launch") return {};
  const auto mark =
      std::find_if(argv, end, [](const char* w) { return std::string_view(w) == "--"; });
  if (mark == end) return {};
  argc = static_cast<int>(mark - argv);
  return {mark + 1, end};
}

void add_launch(CLI::App& app, const std::vector<std::string>& job) {
  auto words = std::make_shared<Words>();
  CLI::App* command =
      app.add_subcommand("launch", "Start the processes of a job, on this node or on many");
  command->footer(
      "qianli launch [OPTIONS] -- COMMAND …\n\n"
      "COMMAND is a command of qianli (pretrain CONFIG.yaml …) or any program. Every process gets\n"
      "torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR …). When one fails, all "
      "end,\n"
      "and the exit code is that of the first; 75 means stopped and resumable. docs/launch.md "
      "tells "
      "more.");
  add_own_options(*command, *words);
  add_msrun_options(*command, *words);
  command->callback([words, job, command, &app] {
    words->has_processes = command->count("--nproc") > 0;
    words->has_nodes = command->count("--nnodes") > 0;
    words->has_rendezvous = command->count("--rdzv") > 0;
    words->has_master = command->get_option_group("msrun")->count("--master_addr") > 0;
    run(*words, job, names_of(app));
  });
}

}  // namespace qianli::app
