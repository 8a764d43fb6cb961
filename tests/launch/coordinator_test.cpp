// The state machine without sockets and without waiting: the test's clock moves as it likes.
#include "qianli/launch/coordinator.h"

#include <gtest/gtest.h>
#include <signal.h>

#include "qianli/base/error.h"

namespace qianli::launch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class CoordinatorTest : public ::testing::Test {
 protected:
  void make(int nodes, int restarts = 0) {
    coordinator_.emplace(Coordinator::Options{.job = "job",
                                              .nodes = nodes,
                                              .max_restarts = restarts,
                                              .master_address = "head",
                                              .free_port = [this] { return ++port_; },
                                              .start_timeout = seconds(100),
                                              .timeout = seconds(8)},
                         now_);
  }
  void hello(int peer, int node_rank = -1, int processes = 2) {
    coordinator_->receive(peer,
                          Hello{.job = "job",
                                .nodes = nodes_,
                                .processes = processes,
                                .node_rank = node_rank,
                                .host = "host" + std::to_string(peer)},
                          now_);
  }
  // A job of three nodes that runs; what was said until then is forgotten.
  void running(int restarts = 0) {
    nodes_ = 3;
    make(3, restarts);
    for (int peer : {0, 1, 2}) hello(peer);
    coordinator_->take_outgoing();
  }
  void receive(int peer, const Message& message) { coordinator_->receive(peer, message, now_); }
  void pass(Clock::duration time) {
    now_ += time;
    coordinator_->tick(now_);
  }
  // The messages of one kind, by peer.
  template <class M>
  std::map<int, M> sent() {
    std::map<int, M> found;
    for (const auto& [to, message] : coordinator_->take_outgoing())
      if (const M* one = std::get_if<M>(&message)) found[to] = *one;
    return found;
  }
  void all_end() {
    for (int peer : {0, 1, 2}) receive(peer, Ended{});
  }

  std::optional<Coordinator> coordinator_;
  int nodes_ = 1, port_ = 15000;
  Time now_;
};

TEST_F(CoordinatorTest, starts_when_all_are_here_in_order_of_arrival) {
  nodes_ = 3;
  make(3);
  hello(0, -1, 2);
  hello(1, -1, 4);
  EXPECT_TRUE(sent<Start>().empty());
  hello(2, -1, 1);
  const auto start = sent<Start>();
  ASSERT_EQ(start.size(), 3u);
  EXPECT_EQ(start.at(0).first_rank, 0);
  EXPECT_EQ(start.at(1).first_rank, 2);
  EXPECT_EQ(start.at(2).first_rank, 6);
  EXPECT_EQ(start.at(2).world_size, 7);
  EXPECT_EQ(start.at(2).master_address, "head");
  EXPECT_EQ(start.at(2).master_port, start.at(0).master_port);
}

TEST_F(CoordinatorTest, asked_for_ranks_are_kept_and_the_others_fill_the_gaps) {
  nodes_ = 4;
  make(4);
  hello(0, 0, 1);
  hello(1, 3, 1);
  hello(2, -1, 1);
  hello(3, -1, 1);
  const auto start = sent<Start>();
  EXPECT_EQ(start.at(1).node_rank, 3);
  EXPECT_EQ(start.at(1).first_rank, 3);
  EXPECT_EQ(start.at(2).node_rank, 1);
  EXPECT_EQ(start.at(3).node_rank, 2);
}

TEST_F(CoordinatorTest, refuses_strangers_and_goes_on) {
  nodes_ = 2;
  make(2);
  hello(0, 0);
  const auto refused = [&](const Hello& hello) {
    static int peer = 10;
    receive(++peer, hello);
    const auto exit = sent<Exit>();
    return exit.contains(peer) ? exit.at(peer).text : "";
  };
  const Hello good{.job = "job", .nodes = 2, .node_rank = 1, .host = "h"};
  Hello bad = good;
  bad.version = 2;
  EXPECT_NE(refused(bad).find("version"), std::string::npos);
  bad = good;
  bad.job = "other";
  EXPECT_NE(refused(bad).find("'other'"), std::string::npos);
  bad = good;
  bad.nodes = 3;
  EXPECT_NE(refused(bad).find("--nnodes"), std::string::npos);
  bad = good;
  bad.node_rank = 0;
  EXPECT_NE(refused(bad).find("second one"), std::string::npos);
  bad.node_rank = 2;
  EXPECT_NE(refused(bad).find("node rank below 2"), std::string::npos);
  receive(50, Beat{});  // before its hello
  receive(51, Failed{.rank = 0, .code = 1});
  EXPECT_FALSE(coordinator_->over());
  hello(60, 1);
  EXPECT_EQ(sent<Start>().size(), 2u);
  EXPECT_NE(refused(good).find("before the job started"), std::string::npos);
}

TEST_F(CoordinatorTest, names_the_nodes_that_did_not_come) {
  nodes_ = 4;
  make(4);
  hello(0, 0);
  hello(1, 2);
  for (int i = 0; i < 60; ++i) {
    pass(seconds(2));
    receive(1, Beat{});
    if (coordinator_->over()) break;
  }
  const auto exit = sent<Exit>();
  ASSERT_EQ(exit.size(), 2u);
  EXPECT_EQ(exit.at(1).code, static_cast<int>(ExitCode::kUnavailable));
  EXPECT_NE(exit.at(1).text.find("got 2 (host0, host1); missing: node 1, node 3"),
            std::string::npos)
      << exit.at(1).text;
  EXPECT_EQ(now_, Time() + seconds(100));
}

TEST_F(CoordinatorTest, a_node_that_leaves_before_the_start_may_come_again) {
  nodes_ = 2;
  make(2);
  hello(0, 0);
  hello(1, 1);
  running();  // two nodes were all: the job of three is a new one
  make(3);
  hello(0);
  hello(1);
  coordinator_->closed(1, "gone", now_);
  hello(2);
  EXPECT_TRUE(sent<Start>().empty());
  hello(3);
  EXPECT_EQ(sent<Start>().size(), 3u);
}

TEST_F(CoordinatorTest, all_ranks_at_0_end_the_job_with_0) {
  running();
  receive(0, Ended{});
  receive(1, Ended{});
  EXPECT_FALSE(coordinator_->over());
  receive(2, Ended{});
  EXPECT_TRUE(coordinator_->over());
  EXPECT_EQ(sent<Exit>().at(1).code, 0);
}

TEST_F(CoordinatorTest, the_first_failure_stops_all_and_decides) {
  running();
  receive(1, Failed{.rank = 3, .code = 9, .text = "rank 3"});
  const auto stop = sent<Stop>();
  ASSERT_EQ(stop.size(), 3u);
  EXPECT_EQ(stop.at(2).text, "rank 3");
  EXPECT_FALSE(stop.at(2).gentle);
  receive(0, Failed{.rank = 0, .code = 1, .text = "rank 0"});
  EXPECT_TRUE(sent<Stop>().empty());
  all_end();
  EXPECT_EQ(sent<Exit>().at(0).code, 9);
}

TEST_F(CoordinatorTest, restarts_as_often_as_asked_at_another_port) {
  running(/*restarts=*/2);
  int last_port = 0;
  for (int attempt = 1; attempt <= 2; ++attempt) {
    receive(2, Failed{.rank = 5, .code = 1, .text = ""});
    receive(0, Ended{});
    receive(2, Ended{});
    EXPECT_TRUE(sent<Start>().empty());
    receive(1, Ended{});
    const auto start = sent<Start>();
    ASSERT_EQ(start.size(), 3u);
    EXPECT_EQ(start.at(1).attempt, attempt);
    EXPECT_EQ(start.at(1).first_rank, 2);
    EXPECT_NE(start.at(1).master_port, last_port);
    last_port = start.at(1).master_port;
  }
  receive(2, Failed{.rank = 5, .code = 1, .text = ""});
  all_end();
  EXPECT_TRUE(coordinator_->over());
  EXPECT_EQ(sent<Exit>().at(0).code, 1);
}

TEST_F(CoordinatorTest, stopped_on_request_is_no_failure) {
  running(/*restarts=*/5);
  receive(1, Failed{.rank = 3, .code = 75, .text = ""});
  EXPECT_TRUE(sent<Stop>().at(0).gentle);
  all_end();
  EXPECT_EQ(sent<Exit>().at(2).code, 75);
}

TEST_F(CoordinatorTest, a_signal_reaches_all_nodes_once_and_ends_restarts) {
  running(/*restarts=*/5);
  receive(1, Signal{SIGINT});
  const auto signal = sent<Signal>();
  EXPECT_EQ(signal.size(), 2u);
  EXPECT_FALSE(signal.contains(1));
  receive(0, Failed{.rank = 0, .code = 130, .text = ""});
  EXPECT_TRUE(sent<Stop>().at(1).gentle);
  all_end();
  EXPECT_EQ(sent<Exit>().at(2).code, 130);
}

TEST_F(CoordinatorTest, a_signal_before_the_start_ends_the_job) {
  nodes_ = 3;
  make(3);
  hello(0);
  hello(1);
  receive(0, Signal{SIGTERM});
  EXPECT_EQ(sent<Exit>().at(1).code, 143);
}

TEST_F(CoordinatorTest, a_closed_connection_is_a_lost_node) {
  running(/*restarts=*/5);
  coordinator_->closed(2, "the connection was closed", now_);
  const auto stop = sent<Stop>();
  EXPECT_EQ(stop.size(), 2u);
  EXPECT_NE(stop.at(0).text.find("lost node 2 (host2): the connection was closed"),
            std::string::npos);
  receive(0, Ended{});
  receive(1, Ended{});
  EXPECT_EQ(sent<Exit>().at(0).code, static_cast<int>(ExitCode::kUnavailable));
}

TEST_F(CoordinatorTest, a_silent_node_is_lost_and_one_that_beats_is_not) {
  running();
  for (int i = 0; i < 3; ++i) {
    pass(seconds(2));
    receive(1, Beat{});
    EXPECT_TRUE(sent<Stop>().empty());
  }
  pass(milliseconds(1999));
  EXPECT_TRUE(sent<Stop>().empty());
  pass(milliseconds(1));
  const auto stop = sent<Stop>();
  ASSERT_EQ(stop.size(), 2u);
  EXPECT_NE(stop.at(1).text.find("lost node 2 (host2): nothing heard for 8 s"), std::string::npos);
}

TEST_F(CoordinatorTest, shows_that_it_is_here_itself) {
  running();
  EXPECT_EQ(coordinator_->deadline(), now_ + seconds(2));
  pass(seconds(2));
  const auto beats = sent<Beat>();
  EXPECT_EQ(beats.size(), 2u);
  EXPECT_FALSE(beats.contains(Coordinator::kLocal));
}

TEST_F(CoordinatorTest, a_node_lost_while_stopping_forbids_the_restart) {
  running(/*restarts=*/5);
  receive(1, Failed{.rank = 3, .code = 9, .text = ""});
  coordinator_->closed(2, "gone", now_);
  receive(0, Ended{});
  receive(1, Ended{});
  EXPECT_EQ(sent<Exit>().at(0).code, 9);
}

TEST_F(CoordinatorTest, messages_that_only_it_sends_lose_the_sender) {
  running();
  receive(1, Exit{0, ""});
  EXPECT_EQ(sent<Stop>().size(), 2u);
}

}  // namespace
}  // namespace qianli::launch
