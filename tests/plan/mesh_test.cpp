#include "qianli/plan/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/random.h"

namespace qianli::plan {
namespace {

using enum Axis;
using Groups = std::vector<Ranks>;

// The specification's worked example: 16 ranks, tp 2, cp 2, pp 2, hence dp 2.
MeshSizes sixteen() { return {.world = 16, .tensor = 2, .context = 2, .pipeline = 2}; }

Groups consecutive(int64_t world, int64_t size) {
  Groups groups;
  for (int64_t first = 0; first < world; first += size) {
    groups.emplace_back(static_cast<size_t>(size));
    std::iota(groups.back().begin(), groups.back().end(), first);
  }
  return groups;
}

TEST(Mesh, numbers_dense_groups_as_megatron_does) {
  const RankGrid grid = Mesh(sixteen()).dense();
  EXPECT_EQ(grid.size(kData), 2);
  EXPECT_EQ(grid.groups({kTensor}), consecutive(16, 2));
  EXPECT_EQ(grid.groups({kContext}),
            (Groups{{0, 2}, {1, 3}, {4, 6}, {5, 7}, {8, 10}, {9, 11}, {12, 14}, {13, 15}}));
  EXPECT_EQ(grid.groups({kData}),
            (Groups{{0, 4}, {1, 5}, {2, 6}, {3, 7}, {8, 12}, {9, 13}, {10, 14}, {11, 15}}));
  EXPECT_EQ(grid.group(9, {kPipeline}), (Ranks{1, 9}));
  EXPECT_EQ(grid.groups({kTensor, kPipeline}),
            (Groups{{0, 1, 8, 9}, {2, 3, 10, 11}, {4, 5, 12, 13}, {6, 7, 14, 15}}));
  EXPECT_EQ(grid.groups({kData, kContext}),
            (Groups{{0, 2, 4, 6}, {1, 3, 5, 7}, {8, 10, 12, 14}, {9, 11, 13, 15}}));
  EXPECT_EQ(grid.groups({kTensor, kContext}), consecutive(16, 4));
  EXPECT_EQ(grid.groups({kTensor, kData, kContext}), consecutive(16, 8));
}

TEST(Mesh, numbers_expert_groups_as_megatron_does) {
  MeshSizes sizes = sixteen();
  sizes.expert_tensor = 1;
  sizes.expert = 4;
  const RankGrid one = Mesh(sizes).expert();
  EXPECT_EQ(one.size(kData), 2);
  EXPECT_EQ(one.groups({kExpert}), consecutive(16, 4));
  EXPECT_EQ(one.groups({kTensor, kExpert}), consecutive(16, 4));
  EXPECT_EQ(one.group(8, {kData}), (Ranks{8, 12}));
  EXPECT_EQ(one.groups({kTensor, kExpert, kPipeline}),
            (Groups{{0, 1, 2, 3, 8, 9, 10, 11}, {4, 5, 6, 7, 12, 13, 14, 15}}));
  sizes.expert_tensor = 0;  // as tensor: 2
  sizes.expert = 2;
  const RankGrid two = Mesh(sizes).expert();
  EXPECT_EQ(two.group(0, {kExpert}), (Ranks{0, 2}));
  EXPECT_EQ(two.group(5, {kExpert}), (Ranks{5, 7}));
  EXPECT_EQ(two.groups({kTensor}), consecutive(16, 2));
  EXPECT_EQ(two.groups({kTensor, kExpert}), consecutive(16, 4));
  EXPECT_EQ(two.group(1, {kData}), (Ranks{1, 5}));
}

TEST(Mesh, puts_the_pipeline_before_the_data_axis_where_asked) {
  MeshSizes sizes = sixteen();
  sizes.pipeline_before_data = true;
  sizes.expert_tensor = 1;
  sizes.expert = 4;
  const Mesh mesh(sizes);
  EXPECT_EQ(mesh.dense().group(0, {kPipeline}), (Ranks{0, 4}));
  EXPECT_EQ(mesh.dense().group(8, {kPipeline}), (Ranks{8, 12}));
  EXPECT_EQ(mesh.dense().group(3, {kData}), (Ranks{3, 11}));
  sizes.expert = 2;  // other stages for experts
  EXPECT_THROW(Mesh{sizes}, ConfigError);
}

TEST(Mesh, shares_the_embedding_between_the_outer_stages) {
  const Mesh mesh({.world = 8, .pipeline = 4});
  EXPECT_EQ(mesh.embedding_group(1), (Ranks{1, 7}));
  EXPECT_EQ(mesh.embedding_group(7), (Ranks{1, 7}));
  EXPECT_EQ(mesh.embedding_group(3), Ranks{});
  EXPECT_EQ(Mesh({.world = 3}).embedding_group(2), Ranks{2});
}

TEST(Mesh, cuts_context_groups_into_heads_and_rings) {
  const Ranks group = {0, 2, 4, 6};
  EXPECT_EQ(context_parts(group, 4, 2).heads, (Ranks{4, 6}));
  EXPECT_EQ(context_parts(group, 4, 2).ring, (Ranks{0, 4}));
  EXPECT_EQ(context_parts(group, 4, 4).ring, Ranks{4});
  EXPECT_EQ(context_parts(group, 4, 1).ring, group);
  EXPECT_THROW(context_parts(group, 4, 3), ConfigError);
}

TEST(Mesh, names_everything_that_is_wrong) {
  const auto problems = mesh_problems({.world = 12, .tensor = 8, .expert = 5});
  EXPECT_EQ(problems.size(), 2u);
  EXPECT_EQ(mesh_problems({.world = 0, .tensor = -1, .context = 0}).size(), 3u);
  const int64_t huge = INT64_MAX;
  EXPECT_FALSE(
      mesh_problems({.world = 8, .tensor = huge, .context = huge, .expert = huge}).empty());
}

// Every group of every choice of axes: no rank twice or missing, sizes are products, and groups of
// different axes meet in one rank.
TEST(Mesh, groups_partition_the_ranks) {
  const Axes all[] = {{kTensor},
                      {kContext},
                      {kData},
                      {kPipeline},
                      {kTensor, kData},
                      {kContext, kData},
                      {kTensor, kContext, kData},
                      {kTensor, kPipeline}};
  for (const MeshSizes& sizes :
       {MeshSizes{.world = 48, .tensor = 2, .context = 3, .pipeline = 4},
        MeshSizes{.world = 48, .tensor = 4, .pipeline = 3, .expert = 2, .expert_tensor = 2},
        MeshSizes{.world = 24,
        .tensor = 2,
        .pipeline = 3,
        .expert = 2,
        .expert_tensor = 1,
        .pipeline_before_data = true}}) {
    const Mesh mesh(sizes);
    EXPECT_EQ(mesh.dense().groups({kPipeline}), mesh.expert().groups({kPipeline}));
    for (const Axes& axes : all) {
      int64_t product = 1;
      for (const Axis axis : axes) product *= mesh.dense().size(axis);
      std::set<int64_t> seen;
      for (const Ranks& group : mesh.dense().groups(axes)) {
        EXPECT_EQ(static_cast<int64_t>(group.size()), product);
        for (const int64_t rank : group) {
          EXPECT_TRUE(seen.insert(rank).second);
          EXPECT_EQ(mesh.dense().group(rank, axes), group);
        }
      }
      EXPECT_EQ(static_cast<int64_t>(seen.size()), sizes.world);
    }
    for (const Ranks& tensor : mesh.dense().groups({kTensor})) {
      for (Ranks data : mesh.dense().groups({kData})) {
        Ranks both;
        std::ranges::sort(data);
        std::ranges::set_intersection(tensor, data, std::back_inserter(both));
        EXPECT_LE(both.size(), 1u);
      }
    }
  }
}

}  // namespace
}  // namespace qianli::plan
