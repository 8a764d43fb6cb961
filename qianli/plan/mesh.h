// Which rank is where: the grids of ranks and every group that follows from them, as Megatron-core
// numbers them (megatron/core/parallel_state.py). Pure arithmetic: nothing communicates, and one
// rank's groups cost no more for a job of ten thousand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qianli::plan {

// Megatron's short names are tp, cp, ep, dp, pp.
enum class Axis { kTensor, kContext, kExpert, kData, kPipeline };
using Axes = std::vector<Axis>;
using Ranks = std::vector<int64_t>;

struct MeshSizes {
  int64_t world = 1;
  int64_t tensor = 1;
  int64_t context = 1;
  int64_t pipeline = 1;
  int64_t expert = 1;
  int64_t expert_tensor = 0;  // 0: as tensor
  // Neighbouring ranks are stages of a pipeline rather than replicas (--use-tp-pp-dp-mapping).
  bool pipeline_before_data = false;
};

// The ranks 0 … product of sizes - 1 in an array with named axes, of which the first varies
// fastest.
class RankGrid {
 public:
  struct Dimension {
    Axis axis;
    int64_t size;
  };
  explicit RankGrid(std::vector<Dimension> dimensions);

  int64_t world() const { return world_; }
  int64_t size(Axis axis) const;
  int64_t coordinate(int64_t rank, Axis axis) const;
  // The ranks that differ from `rank` only along `axes`, itself among them, in the grid's order.
  Ranks group(int64_t rank, const Axes& axes) const;
  // Every such group, each rank in exactly one.
  std::vector<Ranks> groups(const Axes& axes) const;

 private:
  struct Placed {
    Axis axis;
    int64_t size, stride;
  };
  std::vector<Placed> dimensions_;
  int64_t world_ = 1;
};

// Two grids over the same ranks: the experts of a mixture have their own tensor size, and their
// ranks come out of the data and context axes.
class Mesh {
 public:
  // Throws ConfigError that names everything wrong with the sizes at once.
  explicit Mesh(const MeshSizes& sizes);

  const MeshSizes& sizes() const { return sizes_; }
  int64_t world() const { return sizes_.world; }
  // tp, cp, dp, pp.
  const RankGrid& dense() const { return dense_; }
  // Expert tensor (tp), ep, expert data (dp), pp.
  const RankGrid& expert() const { return expert_; }

  // First and last stage of the rank's pipeline, which share the embedding; empty for the stages
  // between.
  Ranks embedding_group(int64_t rank) const;

 private:
  MeshSizes sizes_;
  RankGrid dense_, expert_;
};

// What is wrong with the sizes, a sentence each; empty: a Mesh can be made.
std::vector<std::string> mesh_problems(const MeshSizes& sizes);

// Cuts a tensor group of x y ranks, `size_x` being x: rank t is at i = t mod x and j = t / x.
struct TensorParts {
  Ranks x;  // the same j: neighbours
  Ranks y;  // the same i
};
// Throws ConfigError where x does not divide the group.
TensorParts tensor_parts(const Ranks& tensor_group, int64_t rank, int64_t size_x);

// Cuts a context group into parts whose ranks exchange heads (`inner` neighbours, Ulysses) and
// parts that pass keys around (the ranks at the same place of each, ring).
struct ContextParts {
  Ranks heads, ring;
};
// Throws ConfigError where `inner` does not divide the group.
ContextParts context_parts(const Ranks& context_group, int64_t rank, int64_t inner);

}  // namespace qianli::plan
