#include "qianli/plan/sharing.h"

#include <gtest/gtest.h>

#include <string>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

Sharing shared(int64_t zero, int64_t ranks, int64_t near, int64_t replicas) {
  return sharing_of({.zero = zero, .zero_ranks = ranks, .zero_parameter_ranks = near}, replicas);
}

TEST(Sharing, NeighboursDivideTheReplicas) {
  EXPECT_EQ(shared(0, 0, 0, 6).ranks, 1);
  EXPECT_EQ(shared(1, 0, 0, 6).ranks, 6);
  EXPECT_EQ(shared(2, 3, 0, 6).ranks, 3);
  EXPECT_EQ(shared(3, 0, 2, 8).near, 2);
  EXPECT_EQ(shared(3, 4, 4, 8).near, 1);  // a circle that is no smaller
  try {
    shared(1, 4, 0, 6);
    ADD_FAILURE() << "went on";
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("use one of 1, 2, 3, 6"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(shared(3, 4, 3, 8), ConfigError);
}

TEST(Sharing, OfExpertsAsFarAsItGoes) {
  const auto shared = [](int64_t ranks, int64_t near, int64_t replicas) {
    return sharing_of_experts({.zero = 3, .zero_ranks = ranks, .zero_parameter_ranks = near},
                              replicas);
  };
  EXPECT_EQ(shared(0, 0, 5).ranks, 5);
  EXPECT_EQ(shared(4, 0, 2).ranks, 2);
  EXPECT_EQ(shared(4, 0, 6).ranks, 2);
  EXPECT_EQ(shared(8, 4, 4).near, 1);
  EXPECT_EQ(shared(8, 2, 4).near, 2);
  EXPECT_EQ(shared(8, 2, 1).ranks, 1);
}

}  // namespace
}  // namespace qianli::plan
