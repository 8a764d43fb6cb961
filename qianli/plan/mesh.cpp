#include "qianli/plan/mesh.h"

#include <fmt/format.h>

#include <algorithm>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

int64_t expert_tensor(const MeshSizes& sizes) {
  return sizes.expert_tensor == 0 ? sizes.tensor : sizes.expert_tensor;
}

// `inner` axes vary fastest; what is left of the world is data.
RankGrid make_grid(const MeshSizes& sizes, std::vector<RankGrid::Dimension> inner) {
  int64_t used = sizes.pipeline;
  for (const auto& dimension : inner) used *= dimension.size;
  const RankGrid::Dimension data{Axis::kData, sizes.world / used};
  const RankGrid::Dimension pipeline{Axis::kPipeline, sizes.pipeline};
  if (sizes.pipeline_before_data) {
    inner.insert(inner.end(), {pipeline, data});
  } else {
    inner.insert(inner.end(), {data, pipeline});
  }
  return RankGrid(std::move(inner));
}

MeshSizes checked(const MeshSizes& sizes) {
  const auto problems = mesh_problems(sizes);
  if (!problems.empty())
    throw ConfigError("parallel", fmt::format("{}", fmt::join(problems, "; ")));
  return sizes;
}

// `group` as rows of `width` ranks: the row and the column in which `rank` stands.
std::pair<Ranks, Ranks> row_and_column(const Ranks& group, int64_t rank, int64_t width) {
  const int64_t place = std::ranges::find(group, rank) - group.begin();
  std::pair<Ranks, Ranks> found;
  for (int64_t i = 0; i < std::ssize(group); ++i) {
    const int64_t member = group[static_cast<size_t>(i)];
    if (i / width == place / width) found.first.push_back(member);
    if (i % width == place % width) found.second.push_back(member);
  }
  return found;
}

}  // namespace

RankGrid::RankGrid(std::vector<Dimension> dimensions) {
  for (const auto& dimension : dimensions) {
    dimensions_.push_back({dimension.axis, dimension.size, world_});
    world_ *= dimension.size;
  }
}

int64_t RankGrid::size(Axis axis) const {
  for (const auto& dimension : dimensions_) {
    if (dimension.axis == axis) return dimension.size;
  }
  return 1;
}

int64_t RankGrid::coordinate(int64_t rank, Axis axis) const {
  for (const auto& dimension : dimensions_) {
    if (dimension.axis == axis) return rank / dimension.stride % dimension.size;
  }
  return 0;
}

Ranks RankGrid::group(int64_t rank, const Axes& axes) const {
  Ranks ranks = {rank};
  for (const auto& dimension : dimensions_) {
    if (std::ranges::find(axes, dimension.axis) == axes.end()) continue;
    const int64_t first = -(rank / dimension.stride % dimension.size) * dimension.stride;
    Ranks longer;
    for (int64_t i = 0; i < dimension.size; ++i) {
      for (const int64_t inner : ranks) longer.push_back(inner + first + i * dimension.stride);
    }
    ranks = std::move(longer);
  }
  return ranks;
}

std::vector<Ranks> RankGrid::groups(const Axes& axes) const {
  std::vector<Ranks> all;
  for (int64_t rank = 0; rank < world_; ++rank) {
    Ranks group = this->group(rank, axes);
    if (group.front() == rank) all.push_back(std::move(group));
  }
  return all;
}

std::vector<std::string> mesh_problems(const MeshSizes& sizes) {
  std::vector<std::string> problems;
  const auto positive = [&](const char* name, int64_t size, int64_t least) {
    if (size < least)
      problems.push_back(fmt::format("expected {} of at least {}, got {}", name, least, size));
  };
  positive("a number of ranks", sizes.world, 1);
  positive("parallel.tensor", sizes.tensor, 1);
  positive("parallel.context", sizes.context, 1);
  positive("parallel.pipeline", sizes.pipeline, 1);
  positive("parallel.expert", sizes.expert, 1);
  positive("parallel.expert_tensor", sizes.expert_tensor, 0);
  if (!problems.empty()) return problems;

  const auto fits = [&](const std::string& names, std::initializer_list<int64_t> factors) {
    __int128 product = 1;
    for (const int64_t factor : factors) product = std::min<__int128>(product * factor, INT64_MAX);
    const bool fitting = sizes.world % static_cast<int64_t>(product) == 0;
    if (!fitting) {
      problems.push_back(fmt::format("expected a number of ranks that {} = {} divides, got {}",
                                     names, static_cast<int64_t>(product), sizes.world));
    }
    return fitting;
  };
  const bool dense =
      fits("tensor x context x pipeline", {sizes.tensor, sizes.context, sizes.pipeline});
  // Without a tensor size of their own, experts bring nothing new where there are none to share.
  const bool same = sizes.expert == 1 && expert_tensor(sizes) == sizes.tensor;
  const bool expert = same ? dense
                           : fits("expert_tensor x expert x pipeline",
                                  {expert_tensor(sizes), sizes.expert, sizes.pipeline});
  // Both products divide the number of ranks now, so they are no larger.
  if (!dense || !expert || !sizes.pipeline_before_data || sizes.pipeline == 1) return problems;
  const int64_t stride = sizes.tensor * sizes.context,
                expert_stride = expert_tensor(sizes) * sizes.expert;
  if (stride != expert_stride) {
    // Otherwise a rank's neighbours in the pipeline would be others for experts.
    problems.push_back(fmt::format(
        "expected expert_tensor x expert = tensor x context where parallel.order puts the pipeline "
        "before the data axis, got {} and {}",
        expert_stride, stride));
  }
  return problems;
}

Mesh::Mesh(const MeshSizes& sizes)
    : sizes_(checked(sizes)),
      dense_(make_grid(sizes, {{Axis::kTensor, sizes.tensor}, {Axis::kContext, sizes.context}})),
      expert_(make_grid(sizes,
                        {{Axis::kTensor, expert_tensor(sizes)}, {Axis::kExpert, sizes.expert}})) {}

Ranks Mesh::embedding_group(int64_t rank) const {
  const Ranks stages = dense_.group(rank, {Axis::kPipeline});
  if (stages.size() == 1) return stages;
  if (rank != stages.front() && rank != stages.back()) return {};
  return {stages.front(), stages.back()};
}

TensorParts tensor_parts(const Ranks& tensor_group, int64_t rank, int64_t size_x) {
  const auto size = static_cast<int64_t>(tensor_group.size());
  if (size_x < 1 || size % size_x != 0) {
    throw ConfigError("parallel",
                      fmt::format("expected parallel.tensor_x that divides parallel.tensor={}, "
                                  "got {}",
                                  size, size_x));
  }
  auto [row, column] = row_and_column(tensor_group, rank, size_x);
  return {.x = std::move(row), .y = std::move(column)};
}

ContextParts context_parts(const Ranks& context_group, int64_t rank, int64_t inner) {
  const auto size = static_cast<int64_t>(context_group.size());
  if (inner < 1 || size % inner != 0) {
    throw ConfigError("parallel", fmt::format("expected a Ulysses degree that divides the context "
                                              "size {}, got {}",
                                              size, inner));
  }
  auto [row, column] = row_and_column(context_group, rank, inner);
  return {.heads = std::move(row), .ring = std::move(column)};
}

}  // namespace qianli::plan
