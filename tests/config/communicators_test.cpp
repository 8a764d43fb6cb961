#include "qianli/config/communicators.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"
#include "qianli/config/config.h"

namespace qianli::config {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;

TEST(Communicators, are_read_by_group) {
  const auto all =
      parse_communicators(" tensor:ctas=8,buffer=4M ; expert_tensor: ctas=4-16;all:buffer=512K");
  ASSERT_EQ(all.size(), 3);
  EXPECT_EQ(all[0].group, "tensor");
  EXPECT_EQ(all[0].options,
            (CommunicatorOptions{.min_ctas = 8, .max_ctas = 8, .buffer_bytes = 4 * kMebibyte}));
  EXPECT_EQ(all[1].written, "expert_tensor");
  EXPECT_EQ(all[1].group, "expert tensor");
  EXPECT_FALSE(all[1].foreign);
  EXPECT_EQ(all[1].options, (CommunicatorOptions{.min_ctas = 4, .max_ctas = 16}));
  EXPECT_EQ(all[2].options.buffer_bytes, 512 * 1024);
  EXPECT_TRUE(parse_communicators("").empty());
  EXPECT_EQ(written_name("context ring"), "context_ring");
}

TEST(Communicators, are_read_from_the_names_of_other_programs) {
  const auto all = parse_communicators("dp:200;tp:300;exp:400;tp_dp_cp:10");
  ASSERT_EQ(all.size(), 4);
  EXPECT_EQ(all[0].group, "data");
  EXPECT_EQ(all[1].group, "tensor");
  EXPECT_EQ(all[1].options.buffer_bytes, 300 * kMebibyte);
  EXPECT_EQ(all[2].group, "experts");
  EXPECT_TRUE(all[3].foreign);
  EXPECT_EQ(all[3].group, "");
}

TEST(Communicators, that_say_something_else_are_refused) {
  const auto problem = [](const char* text) {
    try {
      parse_communicators(text);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const char* text :
       {"tensor", ":8", "tensor:", "tensor:ctas=", "tensor:ctas=0", "tensor:ctas=9-8",
        "tensor:ctas=65", "tensor:buffer=4T", "tensor:buffer=99999999999999999999",
        "tensor:buffer=65G", "tensor:-3", "tensor:8;tensor:9", "tensor:8,x=4"}) {
    EXPECT_NE(problem(text).find("parallel.communicators"), std::string::npos) << text;
  }
  EXPECT_NE(problem("tensor:cta=8").find("did you mean 'ctas'?"), std::string::npos);
}

TEST(Communicators, are_checked_with_the_configuration) {
  Config config;
  config.parallel.communicators = "tensor:ctas=zwei";
  EXPECT_THROW(validate(config), ConfigError);
}

}  // namespace
}  // namespace qianli::config
