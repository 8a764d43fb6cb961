#include "qianli/base/trace.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

namespace qianli::trace {
namespace {

TEST(Trace, nobody_records_unless_asked) {
  bool named = false;
  {
    const Span span([&] { return named = true, std::string("work"); });
  }
  EXPECT_FALSE(named);
  EXPECT_EQ(recorder(), nullptr);
}

TEST(Trace, work_and_what_travels_beside_it) {
  const auto recorder = std::make_shared<Recorder>();
  std::function<void()> arrived;
  {
    const Use use(recorder);
    const Span outer([] { return std::string("outer"); });
    arrived = trace::recorder()->travel("message \"1\"");
    const Span inner([] { return std::string("inner"); });
    std::thread([&] { EXPECT_EQ(trace::recorder(), nullptr); }).join();
  }
  std::thread(arrived).join();
  EXPECT_EQ(trace::recorder(), nullptr);
  const auto events = recorder->events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].name, "outer");
  EXPECT_LE(events[0].begin, events[2].begin);
  EXPECT_LE(events[2].end, events[0].end);
  EXPECT_GE(events[1].end, events[0].end);
  EXPECT_TRUE(events[1].travels);

  const auto json = nlohmann::json::parse(recorder->json(7));
  ASSERT_EQ(json["traceEvents"].size(), 4u);  // a message begins and ends
  EXPECT_EQ(json["traceEvents"][0]["ph"], "X");
  EXPECT_EQ(json["traceEvents"][0]["pid"], 7);
  EXPECT_EQ(json["traceEvents"][1]["ph"], "b");
  EXPECT_EQ(json["traceEvents"][2]["ph"], "e");
  EXPECT_EQ(json["traceEvents"][1]["id"], json["traceEvents"][2]["id"]);
  EXPECT_EQ(json["traceEvents"][1]["name"], "message \"1\"");
}

}  // namespace
}  // namespace qianli::trace
