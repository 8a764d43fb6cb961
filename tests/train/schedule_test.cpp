#include "qianli/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace qianli::optim {
namespace {

config::OptimConfig config_of(const std::string& schedule) {
  config::OptimConfig config;
  config.lr = 1.0;
  config.min_lr = 0.1;
  config.lr_schedule = schedule;
  config.warmup_steps = 10;
  config.decay_steps = 110;
  return config;
}

TEST(Schedule, warms_up_linearly_from_zero) {
  for (const char* name : {"constant", "linear", "cosine", "wsd", "inverse_sqrt"}) {
    const auto config = config_of(name);
    EXPECT_EQ(learning_rate(config, 0), 0.0) << name;
    EXPECT_DOUBLE_EQ(learning_rate(config, 5), 0.5) << name;
    EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1.0) << name;
  }
}

TEST(Schedule, follows_its_formula_after_the_warm_up) {
  EXPECT_DOUBLE_EQ(learning_rate(config_of("constant"), 1000), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(config_of("linear"), 60), 0.1 + 0.5 * 0.9);
  EXPECT_DOUBLE_EQ(learning_rate(config_of("cosine"), 60), 0.1 + 0.5 * 0.9);
  EXPECT_NEAR(learning_rate(config_of("cosine"), 35), 0.1 + (1 + std::cos(M_PI / 4)) / 2 * 0.9,
              1e-15);
  EXPECT_NEAR(learning_rate(config_of("inverse_sqrt"), 40), 0.5, 1e-15);
  EXPECT_DOUBLE_EQ(learning_rate(config_of("inverse_sqrt"), 109),
                   std::sqrt(10.0) / std::sqrt(109.0));
}

TEST(Schedule, ends_at_the_minimum) {
  for (const char* name : {"linear", "cosine"}) {
    EXPECT_NEAR(learning_rate(config_of(name), 110), 0.1, 1e-15) << name;
    EXPECT_EQ(learning_rate(config_of(name), 111), 0.1) << name;
  }
}

TEST(Schedule, wsd_stays_then_decays_in_each_style) {
  auto config = config_of("wsd");
  config.wsd_decay_steps = 20;
  EXPECT_DOUBLE_EQ(learning_rate(config, 90), 1.0);
  config.wsd_decay_style = "linear";
  EXPECT_NEAR(learning_rate(config, 100), 0.1 + 0.5 * 0.9, 1e-15);
  config.wsd_decay_style = "cosine";
  EXPECT_NEAR(learning_rate(config, 95), 0.1 + (1 + std::cos(M_PI / 4)) / 2 * 0.9, 1e-15);
  config.wsd_decay_style = "exponential";
  EXPECT_NEAR(learning_rate(config, 100), 0.1 + (2 * std::sqrt(0.5) - 1) * 0.9, 1e-15);
  EXPECT_NEAR(learning_rate(config, 110), 0.1, 1e-15);
}

}  // namespace
}  // namespace qianli::optim
