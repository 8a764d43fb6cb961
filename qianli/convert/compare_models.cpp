#include "qianli/convert/compare_models.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"
#include "qianli/convert/checkpoint/reader.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/number_formats.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

constexpr int64_t kElementsAtOnce = int64_t{1} << 20;

// A tensor of one side as a matrix whose rows can be read.
struct Stored {
  std::string name;
  std::vector<int64_t> shape;
  Dtype dtype;
  int64_t rows, columns;
  std::function<void(int64_t first, int64_t rows, Dtype dtype, std::span<std::byte> out)> read;
};

std::vector<Stored> weights_of(const ModelSource& model) {
  std::vector<Stored> list;
  for (size_t i = 0; i < model.table.size(); ++i) {
    const model::ParameterEntry& entry = model.table[i];
    list.push_back({entry.name, entry.shape, model.reader->dtype(i), matrix_rows(entry),
                    matrix_columns(entry),
                    [&model, i](int64_t first, int64_t rows, Dtype dtype, auto out) {
                      model.reader->assemble(rows_of(model.table, i, first, rows), dtype, out);
                    }});
  }
  return list;
}

Stored stored_state(const formats::TensorSource& source, const formats::TensorSpec& tensor) {
  if (!formats::is_floating_point(tensor.dtype)) {
    throw CheckpointError(
        "compare", fmt::format("{}: expected numbers in {}, got {}", source.source(), tensor.name,
                               formats::dtype_name(tensor.dtype)));
  }
  const int64_t rows = formats::num_rows(tensor);
  return {tensor.name,
          tensor.shape,
          tensor.dtype,
          rows,
          tensor.num_elements() / rows,
          [&source, &tensor](int64_t first, int64_t count, Dtype dtype, auto out) {
            std::vector<std::byte> bytes(formats::row_bytes(tensor) * static_cast<size_t>(count));
            source.read_rows(tensor, first, count, bytes);
            formats::convert_numbers(tensor.dtype, bytes, dtype, out);
          }};
}

// Those of the first kind, then those of the second, each in the order of the parameters.
std::vector<Stored> states_of(const formats::TensorSource& source, const Table& table) {
  std::vector<Stored> list;
  for (const auto kind : {formats::TensorKind::kExpAvg, formats::TensorKind::kExpAvgSq}) {
    for (const model::ParameterEntry& entry : table) {
      const auto* tensor = source.find(formats::state_name(kind, entry.name));
      if (tensor != nullptr) list.push_back(stored_state(source, *tensor));
    }
  }
  return list;
}

// One side, opened.
struct Side {
  std::unique_ptr<ModelSource> model;
  std::optional<formats::Manifest> manifest;  // of a Qianli checkpoint
  std::unique_ptr<formats::TensorSource> optimizer;
  std::vector<Stored> tensors;  // refer to the above
};

Side open_side(const fs::path& path, const SourceOptions& options) {
  const auto folder = step_folder(path);
  Side side{.model = open_model(folder.value_or(path), options)};
  if (folder) side.manifest = formats::read_manifest(*folder);
  side.tensors = weights_of(*side.model);
  return side;
}

void add_optimizer(Side& side) {
  side.optimizer = formats::open_checkpoint_source(
      side.model->path, *side.manifest,
      {formats::TensorKind::kExpAvg, formats::TensorKind::kExpAvgSq});
  for (Stored& state : states_of(*side.optimizer, side.model->table))
    side.tensors.push_back(std::move(state));
}

// The tensors of both sides, found by name.
struct Pair {
  const Stored* a;
  const Stored* b;  // one of them may be null
};

// In the order of A; what only B has stands behind what it follows there.
std::vector<Pair> pairs_of(const std::vector<Stored>& a, const std::vector<Stored>& b) {
  std::unordered_map<std::string, const Stored*> of_a, of_b;
  for (const Stored& tensor : a) of_a.emplace(tensor.name, &tensor);
  for (const Stored& tensor : b) of_b.emplace(tensor.name, &tensor);
  std::map<std::string, std::vector<Pair>> only_b;  // by the tensor of both that they follow
  std::string before;
  for (const Stored& tensor : b) {
    if (of_a.contains(tensor.name))
      before = tensor.name;
    else
      only_b[before].push_back({nullptr, &tensor});
  }
  std::vector<Pair> pairs = only_b[""];
  for (const Stored& tensor : a) {
    const auto other = of_b.find(tensor.name);
    pairs.push_back({&tensor, other == of_b.end() ? nullptr : other->second});
    const auto& following = only_b[tensor.name];
    pairs.insert(pairs.end(), following.begin(), following.end());
  }
  return pairs;
}

TensorDifference no_difference_yet(const Pair& pair) {
  TensorDifference difference{.name = pair.a ? pair.a->name : pair.b->name};
  if (pair.a) difference.shape_a = pair.a->shape;
  if (pair.b) difference.shape_b = pair.b->shape;
  if (difference.has_elements() && (pair.a->dtype == Dtype::kF64 || pair.b->dtype == Dtype::kF64))
    difference.compared_as = Dtype::kF64;
  return difference;
}

template <class T>
Tally compare_rows(const Pair& pair, Dtype dtype, int64_t first, int64_t rows) {
  const int64_t columns = pair.a->columns;
  std::vector<T> a(static_cast<size_t>(rows * columns)), b(a.size());
  pair.a->read(first, rows, dtype, std::as_writable_bytes(std::span(a)));
  pair.b->read(first, rows, dtype, std::as_writable_bytes(std::span(b)));
  return compare_numbers(std::span<const T>(a), std::span<const T>(b), first * columns);
}

// Rows of the pair at `pair` in the list.
struct Piece {
  size_t pair;
  int64_t first, rows;
};

std::vector<Piece> pieces_of(const std::vector<Pair>& pairs,
                             const std::vector<TensorDifference>& differences) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (!differences[i].has_elements()) continue;
    const Stored& tensor = *pairs[i].a;
    const int64_t step = std::max<int64_t>(1, kElementsAtOnce / tensor.columns);
    for (int64_t first = 0; first < tensor.rows; first += step)
      pieces.push_back({i, first, std::min(step, tensor.rows - first)});
  }
  return pieces;
}

// Counts what threads have done; the caller's function is called by one at a time.
class SharedProgress {
 public:
  SharedProgress(const ProgressFunction& progress, uint64_t total)
      : progress_(progress), total_(total) {}
  void add(uint64_t bytes) {
    if (!progress_) return;
    const std::lock_guard lock(mutex_);
    progress_(done_ += bytes, total_);
  }

 private:
  const ProgressFunction& progress_;
  uint64_t total_, done_ = 0;
  std::mutex mutex_;
};

void compare_tensors(const std::vector<Pair>& pairs, const ProgressFunction& progress,
                     ModelComparison& found) {
  std::vector<TensorDifference> all;
  for (const Pair& pair : pairs) all.push_back(no_difference_yet(pair));
  const std::vector<Piece> pieces = pieces_of(pairs, all);
  const auto elements_of = [&](const Piece& piece) {
    return piece.rows * pairs[piece.pair].a->columns;
  };
  const auto bytes_of = [&](const Piece& piece) {
    const int bits = formats::bit_size(all[piece.pair].compared_as);
    return static_cast<uint64_t>(elements_of(piece)) * static_cast<uint64_t>(bits / 8);
  };
  uint64_t total = 0;
  for (const Piece& piece : pieces) total += bytes_of(piece);
  SharedProgress shared(progress, total);
  std::vector<Tally> tallies(pieces.size());
  parallel_for(static_cast<int64_t>(pieces.size()), available_cores(), [&](int64_t i) {
    throw_if_stopped("compare");
    const Piece& piece = pieces[static_cast<size_t>(i)];
    const Dtype dtype = all[piece.pair].compared_as;
    const auto compare = dtype == Dtype::kF64 ? compare_rows<double> : compare_rows<float>;
    tallies[static_cast<size_t>(i)] = compare(pairs[piece.pair], dtype, piece.first, piece.rows);
    shared.add(bytes_of(piece));
  });
  for (size_t i = 0; i < pieces.size(); ++i) {
    all[pieces[i].pair].elements.join(tallies[i]);
    found.elements += elements_of(pieces[i]);
  }
  found.tensors = all.size();
  for (TensorDifference& difference : all) {
    if (!difference.within(0)) found.differences.push_back(std::move(difference));
  }
}

std::vector<model::FieldDifference> state_differences(const formats::TrainingState& a,
                                                      const formats::TrainingState& b) {
  std::vector<model::FieldDifference> list;
  const auto compare = [&](const char* name, const auto& x, const auto& y) {
    if (x != y) list.push_back({name, fmt::format("{}", x), fmt::format("{}", y)});
  };
  compare("step", a.step, b.step);
  compare("updates_done", a.updates_done, b.updates_done);
  compare("consumed_samples", a.consumed_samples, b.consumed_samples);
  compare("seed", a.seed, b.seed);
  compare("data_fingerprint", a.data_fingerprint, b.data_fingerprint);
  return list;
}

// Of two Qianli checkpoints, what is beside the weights.
void add_training(Side& a, Side& b, const CompareOptions& options, ModelComparison& found) {
  if (options.weights_only || !a.manifest || !b.manifest) return;
  found.config_a = a.manifest->state.config_yaml;
  found.config_b = b.manifest->state.config_yaml;
  found.state = state_differences(a.manifest->state, b.manifest->state);
  add_optimizer(a);
  add_optimizer(b);
}

ComparedModel described(const ModelSource& model) {
  std::set<formats::Dtype> dtypes;
  for (size_t i = 0; i < model.table.size(); ++i) dtypes.insert(model.reader->dtype(i));
  ComparedModel described{.path = model.path, .kind = model.kind, .unused = model.unused()};
  for (const Dtype dtype : dtypes) described.dtypes.emplace_back(formats::dtype_name(dtype));
  described.differing_copies = model.reader->differing_copies();
  return described;
}

}  // namespace

ModelComparison compare_models(const fs::path& path_a, const fs::path& path_b,
                               const CompareOptions& options, const ProgressFunction& progress) {
  Side a = open_side(path_a, options.from);
  Side b = open_side(path_b, options.from);
  ModelComparison found{.a = described(*a.model), .b = described(*b.model)};
  found.spec = model::field_differences(a.model->spec, b.model->spec);
  add_training(a, b, options, found);
  compare_tensors(pairs_of(a.tensors, b.tensors), progress, found);
  return found;
}

const TensorDifference* ModelComparison::first(double tolerance) const {
  const auto place =
      std::ranges::find_if_not(differences, [&](const auto& d) { return d.within(tolerance); });
  return place == differences.end() ? nullptr : &*place;
}

bool ModelComparison::equal(double tolerance) const {
  return spec.empty() && state.empty() && a.differing_copies.empty() &&
         b.differing_copies.empty() && first(tolerance) == nullptr;
}

}  // namespace qianli::convert
