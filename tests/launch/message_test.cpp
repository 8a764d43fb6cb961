#include "qianli/launch/message.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli::launch {
namespace {

template <class M>
M round_trip(const M& message) {
  const std::string line = encode(message);
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  return std::get<M>(decode(std::string_view(line).substr(0, line.size() - 1)));
}

TEST(Message, comes_back_as_it_was) {
  const Hello hello = round_trip(
      Hello{.job = "a job", .nodes = 4, .processes = 8, .node_rank = -1, .host = "node1"});
  EXPECT_EQ(hello.job, "a job");
  EXPECT_EQ(hello.processes, 8);
  EXPECT_EQ(hello.node_rank, -1);
  const Start start = round_trip(Start{.attempt = 2,
                                       .node_rank = 1,
                                       .nodes = 2,
                                       .first_rank = 8,
                                       .world_size = 16,
                                       .master_address = "fe80::1%eth0",
                                       .master_port = 15001});
  EXPECT_EQ(start.first_rank, 8);
  EXPECT_EQ(start.master_address, "fe80::1%eth0");
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  for (const auto& text : {std::string(), std::string("-"), std::string("--"), all})
    EXPECT_EQ(round_trip(Failed{.rank = 3, .code = 137, .text = text}).text, text);
  EXPECT_TRUE(round_trip(Stop{.gentle = true}).gentle);
  round_trip(Ended{});
  round_trip(Beat{});
}

TEST(Message, longest_one_is_within_the_bound_of_a_line) {
  const std::string text(3 * kMostText, '\n');
  const std::string line = encode(Failed{.rank = 1, .code = 1, .text = text});
  EXPECT_LT(line.size(), kMostLine);
  EXPECT_EQ(std::get<Failed>(decode(std::string_view(line).substr(0, line.size() - 1))).text,
            text.substr(0, kMostText));
}

TEST(Message, refuses_what_is_none) {
  for (const std::string line : {"",
                                 " ",
                                 "hullo",
                                 "beat ",
                                 " beat",
                                 "beat 1",
                                 "Beat",
                                 "beat\r",
                                 "ended 0",
                                 "stop",
                                 "stop 2 -",
                                 "stop 1",
                                 "stop 1 - -",
                                 "stop 1  -",
                                 "exit 256 -",
                                 "exit -1 -",
                                 "exit 0x1 -",
                                 "exit 99999999999 -",
                                 "exit 0 %",
                                 "exit 0 %1",
                                 "exit 0 %zz",
                                 "exit 0 %+1",
                                 "exit 0 \x80",
                                 "signal 0",
                                 "signal 1000",
                                 "welcome 0",
                                 "failed 1 0 -",
                                 "hello 1 a 0 1 0 h",
                                 "hello 1 a 1 5000 0 h",
                                 "hello 1 a 1 1 -2 h",
                                 "GET / HTTP/1.1"}) {
    EXPECT_THROW(decode(line), DataError) << line;
  }
  EXPECT_THROW(decode("exit 0 " + std::string(kMostLine, 'a')), DataError);
  EXPECT_THROW(decode("exit 0 " + std::string(kMostText + 1, 'a')), DataError);
}

}  // namespace
}  // namespace qianli::launch
