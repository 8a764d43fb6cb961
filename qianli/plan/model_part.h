// What of a model one rank holds: which parameters, and which part of each. Pure arithmetic over
// the parameter table; memory, checkpoints and layers all follow it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "qianli/formats/box.h"
#include "qianli/model/parameter_table.h"
#include "qianli/model/spec.h"
#include "qianli/plan/layers.h"

namespace qianli::config {
struct TuneConfig;
}

namespace qianli::plan {

struct IndexRange {
  int64_t begin = 0, end = 0;

  int64_t count() const { return end - begin; }
  bool operator==(const IndexRange&) const = default;
};

// The `index`-th of `count` ranks that share something.
struct Share {
  int64_t index = 0, count = 1;

  bool whole() const { return count == 1; }
  // Its neighbours among `n` things, in order; the first n % count ranks have one more.
  IndexRange of(int64_t n) const;
};

struct ModelPart {
  Share tensor;         // of heads, MLP widths and the vocabulary
  Share experts;        // of the experts of a mixture
  Share expert_tensor;  // of the width of an expert
  // Of a pipeline stage: its chunks; empty: all layers, with the embedding and the output layer.
  std::vector<ChunkLayers> chunks;
  // Tokens between the blocks are shared, too (sequence parallelism), so that every gradient of
  // what the ranks of `tensor` all hold is a part of a sum.
  bool sequence = false;
  // Two-dimensional: of the columns of the residual stream. `tensor` is then of the vocabulary, and
  // of heads and MLP widths is what it leaves: rank t of x y has the share t mod x of x of these,
  // and the share t / x of y of the columns.
  Share columns;

  Share inner() const;  // of heads and MLP widths
};

// A parameter as a rank holds it.
struct ParameterPart {
  model::ParameterEntry entry;  // of the whole parameter
  std::vector<int64_t> shape;   // of the part
  // For each axis the indices of the whole that the part has, one range behind the other.
  std::vector<std::vector<IndexRange>> kept;
  // The first `counted` elements are this rank's to save and to count in norms. Others hold the
  // rest as well, and one of them does it for all.
  int64_t counted = 0;
  // Its gradient is a sum over the ranks of `tensor`, of an expert's over those of `expert_tensor`.
  bool summed = false;
  // Its gradient is a sum over the ranks of `tensor` that have other columns of the stream.
  bool summed_over_columns = false;
  // The elements from `shared_from` on are held by `sharers` neighbours of `tensor`, over which
  // their gradient is a sum.
  int64_t shared_from = 0;
  int64_t sharers = 1;
  // Training leaves it as it is; then it may be kept in few bits.
  bool frozen = false;
  bool quantized = false;

  int64_t elements() const;
  bool whole() const;  // the part is the parameter
};

// In the order of the table; those of which the rank holds nothing are left out.
std::vector<ParameterPart> parameter_parts(const model::ModelSpec& spec,
                                           const ModelPart& part = {});
// The same with what training adds, and leaves as it is.
std::vector<ParameterPart> parameter_parts(const model::ModelSpec& spec, const ModelPart& part,
                                           const config::TuneConfig& tune);

// The spec of the attention and mixers that a rank computes: heads and groups are its own, the
// share ModelPart::inner().
model::ModelSpec spec_of_part(const model::ModelSpec& spec, const Share& inner);
// The first query head of the rank, of a layer that has attention.
int64_t first_head(const model::LayerSpec& layer, const Share& tensor);

// Why the model cannot be shared so, a sentence each; empty: it can.
std::vector<std::string> part_problems(const model::ModelSpec& spec, const ModelPart& part);

// Elements [first, first + count) of the part, and where they are in the whole parameter.
struct Run {
  int64_t first = 0, whole_first = 0, count = 0;
};
// All elements of the part as the longest runs that are contiguous in both, in order.
std::vector<Run> runs(const ParameterPart& part);

// A box of the part cut into boxes of the whole parameter; `local` has the same shape, in the part.
struct PlacedBox {
  formats::Box local, whole;
};
std::vector<PlacedBox> placed(const ParameterPart& part, const formats::Box& local);
// What a box of the whole parameter has in common with the part.
std::vector<PlacedBox> common(const ParameterPart& part, const formats::Box& whole);

}  // namespace qianli::plan
