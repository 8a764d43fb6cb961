// `qianli launch` with real processes: what ranks see, how they end together, on one node and on
// two launchers of this machine that stand for two nodes.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

bool holds(const std::string& text, const std::string& words) {
  return text.find(words) != std::string::npos;
}

// A process that has ended but is not waited for yet counts as gone: here nobody reaps orphans.
bool is_alive(pid_t process) {
  std::ifstream stat("/proc/" + std::to_string(process) + "/stat");
  std::string text;
  if (!std::getline(stat, text)) return false;
  const size_t name_end = text.rfind(')');
  return name_end + 2 < text.size() && text[name_end + 2] != 'Z' && text[name_end + 2] != 'X';
}

class LaunchTest : public ::testing::Test {
 protected:
  RunOptions options() const { return {.folder = folder_.path(), .timeout = seconds_}; }
  // `qianli launch OPTIONS -- sh -c SCRIPT`
  static std::vector<std::string> words(std::vector<std::string> launch_options,
                                        const std::string& script) {
    launch_options.insert(launch_options.begin(), "launch");
    launch_options.insert(launch_options.end(), {"--", "sh", "-c", script});
    return launch_options;
  }
  Result launch(std::vector<std::string> launch_options, const std::string& script) const {
    return run(words(std::move(launch_options), script), options());
  }
  std::unique_ptr<Program> start(std::vector<std::string> launch_options,
                                 const std::string& script) const {
    return std::make_unique<Program>(words(std::move(launch_options), script), options());
  }
  // A node of a job of two, at a port of this test's own.
  std::vector<std::string> node(int rank, std::vector<std::string> more = {}) {
    if (port_ == 0) port_ = free_port();
    more.insert(more.begin(), {"--nnodes", "2", "--node-rank", std::to_string(rank), "--rdzv",
                               "127.0.0.1:" + std::to_string(port_)});
    return more;
  }
  fs::path path(const std::string& name) const { return folder_ / name; }
  bool exists(const std::string& name) const { return fs::exists(path(name)); }
  // Ranks write their process numbers to files; empty until the line is whole.
  std::optional<pid_t> process_in(const std::string& name) const {
    std::ifstream file(path(name));
    std::string text;
    if (!std::getline(file, text) || file.eof()) return std::nullopt;
    return std::stoi(text);
  }
  static bool soon(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      ::usleep(1000);
    }
    return true;
  }
  static int free_port() {
    const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(socket, reinterpret_cast<sockaddr*>(&address), size);
    ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(socket);
    return ntohs(address.sin_port);
  }

  TemporaryFolder folder_;
  std::chrono::seconds seconds_{60};
  int port_ = 0;
};

TEST_F(LaunchTest, RanksGetTorchrunsEnvironment) {
  const Result result =
      launch({"--nproc", "3", "--job-id", "j"},
             "echo $RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $GROUP_RANK $GROUP_WORLD_SIZE "
             "$MASTER_ADDR $TORCHELASTIC_RESTART_COUNT $TORCHELASTIC_RUN_ID "
             "$TORCHELASTIC_USE_AGENT_STORE; test $MASTER_PORT -gt 1023");
  expect_success(result);
  const auto lines = lines_of(result.out);
  EXPECT_EQ((std::set<std::string>(lines.begin(), lines.end())),
            (std::set<std::string>{"[0] 0 0 3 3 0 1 127.0.0.1 0 j False",
                                   "[1] 1 1 3 3 0 1 127.0.0.1 0 j False",
                                   "[2] 2 2 3 3 0 1 127.0.0.1 0 j False"}));
}

TEST_F(LaunchTest, WordsOfTheCommandArriveAsTheyAre) {
  const std::vector<std::string> odd{"--nproc", "[a, b]", "{}", "", "--", "pretrain", "-x", "a b"};
  std::vector<std::string> all{"launch", "--nproc", "1", "--", "printf", "<%s>"};
  all.insert(all.end(), odd.begin(), odd.end());
  EXPECT_EQ(run(all, options()).out, "[0] <--nproc><[a, b]><{}><><--><pretrain><-x><a b>\n");
}

TEST_F(LaunchTest, CommandsOfTheProgramItself) {
  const Result result =
      run({"launch", "--nproc", "2", "--", "presets", "llama-tiny", "--json"}, options());
  expect_success(result);
  EXPECT_TRUE(holds(result.out, "[0] {")) << result.out;
  EXPECT_TRUE(holds(result.out, "[1] {")) << result.out;
}

TEST_F(LaunchTest, LinesStayWholeAndLogsHoldAllBytes) {
  const Result result = launch({"--nproc", "4", "--log-dir", "logs"},
                               "i=0; while [ $i -lt 500 ]; do printf '%s-' $RANK; "
                               "printf '%s\\n' $i; i=$((i+1)); done; printf 'no end'");
  expect_success(result);
  std::map<char, int> next;
  for (const auto& line : lines_of(result.out)) {
    const char rank = line.at(1);
    const std::string expected =
        next[rank] == 500 ? "no end" : std::string(1, rank) + "-" + std::to_string(next[rank]);
    ++next[rank];
    ASSERT_EQ(line.substr(4), expected);
  }
  EXPECT_EQ(next.size(), 4u);
  const std::string log = read_text(path("logs/rank_2.log"));
  EXPECT_EQ(log.substr(0, 8), "2-0\n2-1\n");
  EXPECT_TRUE(log.ends_with("2-499\nno end"));
}

TEST_F(LaunchTest, ManyBytesThroughASlowReaderAreComplete) {
  RunOptions piped = options();
  piped.program = "/bin/bash";
  const std::string script =
      program_path().string() +
      " launch --nproc 2 -- sh -c 'yes 0123456789012345678901234567890123456789 | head -n 100000'"
      " | { sleep 0.3; wc -l; }";
  const Result result = run({"-c", script}, piped);
  EXPECT_EQ(result.out, "200000\n") << result.err;
}

TEST_F(LaunchTest, TheFirstFailureEndsAllAndIsNamed) {
  const Result result = launch({"--nproc", "3", "--grace", "30"},
                               "echo $$ > pid_$RANK; while [ ! -s pid_2 ] || [ ! -s pid_0 ]; do "
                               "sleep 0.01; done; [ $RANK = 1 ] || exec sleep 100; "
                               "echo the reason >&2; exit 7");
  expect_failure(result, 7, {"[launch]", "exit code 7 of rank 1", "the reason"});
  for (const char* name : {"pid_0", "pid_1", "pid_2"})
    EXPECT_FALSE(is_alive(*process_in(name))) << name;
}

TEST_F(LaunchTest, AKilledRankIsNamedWithItsSignal) {
  auto job = start({"--nproc", "2"}, "echo $$ > pid_$RANK; exec sleep 100");
  ASSERT_TRUE(job->wait_for([&] { return process_in("pid_0") && process_in("pid_1"); }));
  ::kill(*process_in("pid_1"), SIGKILL);
  expect_failure(job->finish(), 137, {"SIGKILL (9) of rank 1"});
  EXPECT_FALSE(is_alive(*process_in("pid_0")));
}

TEST_F(LaunchTest, WhoIgnoresSigtermIsKilledAfterTheGraceWithAllItStarted) {
  const Result result =
      launch({"--nproc", "2", "--grace", "0.2"},
             "if [ $RANK = 0 ]; then while [ ! -s inner ]; do sleep 0.01; done; exit 3; fi; "
             "trap '' TERM; sleep 100 & echo $! > inner; while true; do wait; done");
  expect_failure(result, 3, {"exit code 3 of rank 0"});
  EXPECT_TRUE(soon([&] { return !is_alive(*process_in("inner")); }));
}

TEST_F(LaunchTest, RestartsGiveANewPortAndACount) {
  const Result result = launch({"--nproc", "2", "--max-restarts", "2"},
                               "echo $TORCHELASTIC_RESTART_COUNT $MASTER_PORT >> seen_$RANK; "
                               "[ $TORCHELASTIC_RESTART_COUNT = 2 ] || exit 5");
  expect_success(result);
  EXPECT_TRUE(holds(result.err, "restart 1 of 2"));
  EXPECT_TRUE(holds(result.err, "restart 2 of 2"));
  // A rank that another one's failure ended early may have written nothing; the last attempt did.
  EXPECT_EQ(lines_of(read_text(path("seen_0"))).back(), lines_of(read_text(path("seen_1"))).back());
  EXPECT_EQ(lines_of(read_text(path("seen_0"))).back().substr(0, 2), "2 ");
  expect_failure(launch({"--nproc", "2", "--max-restarts", "1"}, "exit 5"), 5, {"restart 1 of 1"});
}

TEST_F(LaunchTest, StoppedAndResumableIsPassedThrough) {
  const Result result =
      launch({"--nproc", "2", "--max-restarts", "3"}, "echo x >> starts_$RANK; exit 75");
  expect_failure(result, 75, {"stopped on request"});
  EXPECT_FALSE(holds(result.err, "restart"));
  EXPECT_EQ(read_text(path("starts_0")), "x\n");
}

TEST_F(LaunchTest, TheFirstInterruptIsPassedOnAndTheSecondKills) {
  const std::string save =
      "trap 'echo saved; exit 75' INT; echo > ready_$RANK; "
      "while true; do sleep 0.05; done";
  auto job = start({"--nproc", "2", "--max-restarts", "3"}, save);
  ASSERT_TRUE(job->wait_for([&] { return exists("ready_0") && exists("ready_1"); }));
  job->send(SIGINT);
  const Result saved = job->finish();
  expect_failure(saved, 75, {"SIGINT passed on"});
  EXPECT_TRUE(holds(saved.out, "[0] saved") && holds(saved.out, "[1] saved")) << saved.out;

  auto stubborn = start({"--nproc", "2"},
                        "trap 'echo > interrupted_$RANK' INT; echo $$ > pid_$RANK; "
                        "while true; do sleep 0.05; done");
  ASSERT_TRUE(stubborn->wait_for([&] { return process_in("pid_0") && process_in("pid_1"); }));
  stubborn->send(SIGINT);
  ASSERT_TRUE(
      stubborn->wait_for([&] { return exists("interrupted_0") && exists("interrupted_1"); }));
  stubborn->send(SIGINT);
  expect_failure(stubborn->finish(), 130, {"second SIGINT"});
  EXPECT_FALSE(is_alive(*process_in("pid_0")));
}

TEST_F(LaunchTest, AKilledLauncherTakesEverythingAlong) {
  auto job =
      start({"--nproc", "2"}, "sleep 100 & echo $! > inner_$RANK; echo $$ > pid_$RANK; wait");
  const char* names[] = {"pid_0", "pid_1", "inner_0", "inner_1"};
  for (const char* name : names)
    ASSERT_TRUE(job->wait_for([&] { return process_in(name).has_value(); }));
  job->send(SIGKILL);
  for (const char* name : names)
    EXPECT_TRUE(soon([&] { return !is_alive(*process_in(name)); })) << name;
}

TEST_F(LaunchTest, CoresAreSharedOut) {
  expect_failure(launch({"--nproc", "2", "--bind_core", "True"}, "true"), 2, {"--worker_num"});
  const Result bound = launch({"--nproc", "2", "--bind-cores"}, "nproc");
  expect_success(bound);
  const Result free = run({"-c", "nproc"}, {.folder = folder_.path(), .program = "/bin/bash"});
  const int cores = std::stoi(free.out);
  for (const auto& line : lines_of(bound.out))
    EXPECT_LE(std::stoi(line.substr(4)), (cores + 1) / 2) << bound.out;
}

TEST_F(LaunchTest, TwoNodesAreOneJob) {
  const std::string script = "echo $RANK $LOCAL_RANK $GROUP_RANK $WORLD_SIZE $MASTER_PORT";
  auto other = start(node(1, {"--nproc", "1"}), script);  // comes before node 0 listens
  const Result first = launch(node(0, {"--nproc", "2"}), script);
  const Result second = other->finish();
  expect_success(first);
  expect_success(second);
  EXPECT_TRUE(holds(first.out, "[1] 1 1 0 3 ")) << first.out;
  EXPECT_TRUE(holds(second.out, "[2] 2 0 1 3 ")) << second.out;
  EXPECT_EQ(lines_of(first.out)[0].substr(12), lines_of(second.out)[0].substr(12));
}

TEST_F(LaunchTest, AFailureAnywhereRestartsAllNodes) {
  const std::string script =
      "[ $TORCHELASTIC_RESTART_COUNT = 1 ] && exit 0; [ $RANK = 1 ] && { echo why >&2; exit 9; }; "
      "exec sleep 100";
  auto other = start(node(1, {"--nproc", "1", "--max-restarts", "1"}), script);
  const Result first = launch(node(0, {"--nproc", "1", "--max-restarts", "1"}), script);
  expect_success(first);
  expect_success(other->finish());
  for (const char* words : {"exit code 9 of rank 1", "    why", "restart 1 of 1"})
    EXPECT_TRUE(holds(first.err, words)) << first.err;
}

TEST_F(LaunchTest, AnInterruptOnOneNodeReachesTheOther) {
  const std::string script =
      "trap 'exit 75' INT; echo > ready_$RANK; while true; do sleep 0.05; done";
  auto zero = start(node(0, {"--nproc", "1"}), script);
  auto one = start(node(1, {"--nproc", "1"}), script);
  ASSERT_TRUE(zero->wait_for([&] { return exists("ready_0") && exists("ready_1"); }));
  one->send(SIGINT);
  EXPECT_EQ(zero->finish().code, 75);
  EXPECT_EQ(one->finish().code, 75);
}

TEST_F(LaunchTest, ANodeWhoseLauncherIsKilledIsNamed) {
  const std::string script = "echo $$ > pid_$RANK; exec sleep 100";
  auto zero = start(node(0, {"--nproc", "1", "--max-restarts", "3"}), script);
  auto one = start(node(1, {"--nproc", "1", "--max-restarts", "3"}), script);
  ASSERT_TRUE(zero->wait_for([&] { return process_in("pid_0") && process_in("pid_1"); }));
  one->send(SIGKILL);
  expect_failure(zero->finish(), 69, {"lost node 1", "connection was closed"});
  EXPECT_TRUE(
      soon([&] { return !is_alive(*process_in("pid_0")) && !is_alive(*process_in("pid_1")); }));
}

TEST_F(LaunchTest, ANodeLosesNode0) {
  const std::string script = "echo $$ > pid_$RANK; exec sleep 100";
  auto zero = start(node(0, {"--nproc", "1"}), script);
  auto one = start(node(1, {"--nproc", "1"}), script);
  ASSERT_TRUE(zero->wait_for([&] { return process_in("pid_0") && process_in("pid_1"); }));
  zero->send(SIGKILL);
  expect_failure(one->finish(), 69, {"node 0", "lost it"});
  EXPECT_FALSE(is_alive(*process_in("pid_1")));
}

TEST_F(LaunchTest, AStoppedNodeIsLostAfterTheTimeout) {
  const std::string script = "echo $$ > pid_$RANK; exec sleep 100";
  auto zero = start(node(0, {"--nproc", "1", "--timeout", "1"}), script);
  // The timeout of node 0 holds for all.
  auto one = start(node(1, {"--nproc", "1", "--timeout", "100"}), script);
  ASSERT_TRUE(zero->wait_for([&] { return process_in("pid_0") && process_in("pid_1"); }));
  one->send(SIGSTOP);
  expect_failure(zero->finish(), 69, {"lost node 1", "nothing heard for 1 s"});
  one->send(SIGCONT);
  expect_failure(one->finish(), 69, {"node 0", "lost it"});
  EXPECT_FALSE(is_alive(*process_in("pid_1")));
}

TEST_F(LaunchTest, NodesThatDoNotComeAreCounted) {
  expect_failure(launch(node(0, {"--start-timeout", "0.2"}), "true"), 69, {"2 nodes", "1 more"});
  expect_failure(launch(node(1, {"--start-timeout", "0.2"}), "true"), 69,
                 {"node 0 at 127.0.0.1:", "Connection refused"});
}

TEST_F(LaunchTest, StrangersAtThePortDoNoHarm) {
  auto zero = start(node(0, {"--nproc", "1"}), "true");
  const std::string address = "/dev/tcp/127.0.0.1/" + std::to_string(port_);
  RunOptions bash = options();
  bash.program = "/bin/bash";
  const auto shout = [&](const std::string& command) {
    return soon([&] { return run({"-c", command + " > " + address}, bash).code == 0; });
  };
  EXPECT_TRUE(shout("printf 'GET / HTTP/1.1\\r\\n\\r\\n'"));
  EXPECT_TRUE(shout("printf 'hello 1 other 2 1 1 h\\n'"));
  EXPECT_TRUE(shout("printf 'beat\\n'"));
  run({"-c", "head -c 1000000 /dev/zero > " + address}, bash);  // cut off: the write may fail
  const Result other = launch(node(1, {"--nproc", "1"}), "true");
  expect_success(other);
  const Result first = zero->finish();
  expect_success(first);
  EXPECT_TRUE(holds(first.err, "one of 'other'")) << first.err;
}

TEST_F(LaunchTest, MsrunsWordsAreUnderstood) {
  const Result result = launch({"--worker_num", "2", "--local_worker_num=2", "--log_dir", "ms",
                                "--join=True", "--cluster_time_out", "60"},
                               "echo $RANK of $WORLD_SIZE");
  expect_success(result);
  EXPECT_EQ(read_text(path("ms/worker_1.log")), "1 of 2\n");
  expect_failure(launch({"--worker_num", "3", "--local_worker_num", "2"}, "true"), 2,
                 {"--worker_num 3", "multiple"});
  expect_failure(launch({"--worker_num", "2", "--nproc", "2"}, "true"), 2, {"got both"});
  expect_failure(launch({"--worker_num", "8", "--join", "maybe"}, "true"), 2,
                 {"--join", "'maybe'"});
}

TEST_F(LaunchTest, WithoutJoinTheJobGoesOnInTheBackground) {
  const Result result = launch({"--worker_num", "2", "--local_worker_num", "2", "--log_dir", "ms"},
                               "while [ ! -e go ]; do sleep 0.01; done; echo done; exit 4");
  expect_success(result);
  EXPECT_TRUE(holds(result.out, "launcher: process ")) << result.out;
  EXPECT_TRUE(holds(result.out, "ms/worker_*.log")) << result.out;
  write_text(path("go"), "");
  EXPECT_TRUE(soon([&] {
    return exists("ms/scheduler.log") && holds(read_text(path("ms/scheduler.log")), "exit code 4");
  }));
}

TEST_F(LaunchTest, WhatCannotBeStartedIsAUsageError) {
  expect_failure(run({"launch", "--nproc", "2"}, options()), 2, {"command behind --"});
  expect_failure(run({"launch", "--nproc", "2", "--", "no-such-program"}, options()), 2,
                 {"'no-such-program'"});
  expect_failure(run({"launch", "--", "./none"}, options()), 2, {"no such file"});
  expect_failure(launch({"--nproc", "none"}, "true"), 2, {"--nproc", "'none'"});
  expect_failure(launch({"--nnodes", "2"}, "true"), 2, {"--rdzv"});
  expect_failure(launch({"--nnodes", "2", "--rdzv", "a:b"}, "true"), 2, {"HOST:PORT", "'a:b'"});
  expect_failure(launch({"--nnodes", "2", "--rdzv", "a:1", "--node-rank", "2"}, "true"), 2,
                 {"--node-rank"});
}

}  // namespace
}  // namespace qianli::testing
