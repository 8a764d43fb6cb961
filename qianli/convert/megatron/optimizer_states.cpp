#include "qianli/convert/megatron/optimizer_states.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

using formats::DistributedChunk;
using formats::DistributedTensor;

constexpr std::string_view kState = "optimizer.state.";

// "optimizer.state.KIND.NAME" behind any "chained_N."; false: something else.
bool take_apart(std::string_view stored, std::string_view& kind, std::string_view& name) {
  if (stored.starts_with("chained_"))
    stored.remove_prefix(std::min(stored.find('.'), stored.size() - 1) + 1);
  if (!stored.starts_with(kState)) return false;
  stored.remove_prefix(kState.size());
  const size_t dot = stored.find('.');
  if (dot == stored.npos) return false;
  kind = stored.substr(0, dot);
  name = stored.substr(dot + 1);
  return true;
}

// How a flat tensor is cut: the shape of a cut, empty where the stored shape is no flat form of
// `shape`.
std::vector<int64_t> shape_of_cut(const std::vector<int64_t>& shape,
                                  const std::vector<int64_t>& stored) {
  if (stored.size() != shape.size() + 1) return {};
  std::vector<int64_t> cut;
  int64_t elements = 1;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (stored[axis] < 1 || shape[axis] % stored[axis] != 0) return {};
    cut.push_back(shape[axis] / stored[axis]);
    elements *= cut.back();
  }
  return elements == stored.back() ? cut : std::vector<int64_t>();
}

class States : public formats::TensorSource {
 public:
  States(std::shared_ptr<const formats::DistributedCheckpoint> checkpoint,
         std::shared_ptr<const formats::TensorSource> model, std::string_view kind)
      : TensorSource(fmt::format("{}: {}", model->source(), kind)),
        checkpoint_(std::move(checkpoint)),
        stored_(formats::open_distributed_source(checkpoint_)),
        model_(std::move(model)),
        weights_(kind == kMasterWeights) {
    std::unordered_map<std::string_view, const DistributedTensor*> states;
    for (const DistributedTensor& tensor : checkpoint_->metadata().tensors) {
      std::string_view its_kind, name;
      if (!take_apart(tensor.spec.name, its_kind, name) || its_kind != kind) continue;
      if (!model_->find(name)) refuse(tensor, "the model has no such tensor");
      states.emplace(name, &tensor);
    }
    for (const formats::TensorSpec& tensor : model_->tensors()) {
      std::string_view its_kind, name;
      if (take_apart(tensor.name, its_kind, name)) continue;
      const auto found = states.find(tensor.name);
      add(tensor, found == states.end() ? nullptr : found->second);
    }
  }

 private:
  struct Entry {
    const formats::TensorSpec* model;
    const DistributedTensor* state;  // null: it has none
    std::vector<int64_t> cut;        // empty: stored whole
  };

  [[noreturn]] static void refuse(const DistributedTensor& tensor, const std::string& reason) {
    throw CheckpointError("convert",
                          fmt::format("{}: {}", formats::shown_name(tensor.spec.name), reason));
  }

  void add(const formats::TensorSpec& tensor, const DistributedTensor* state) {
    Entry entry{&tensor, state, {}};
    if (state && state->spec.shape != tensor.shape) {
      entry.cut = shape_of_cut(tensor.shape, state->spec.shape);
      if (entry.cut.empty()) {
        refuse(*state, fmt::format("expected shape {} or flat cuts of it, got {}",
                                   formats::shape_text(tensor.shape),
                                   formats::shape_text(state->spec.shape)));
      }
      for (const DistributedChunk& chunk : state->chunks) {
        for (size_t axis = 0; axis < entry.cut.size(); ++axis) {
          if (chunk.sizes[axis] != 1) refuse(*state, "expected chunks of one cut each");
        }
      }
    }
    entries_.push_back(std::move(entry));
    TensorSource::add({tensor.name, state ? state->spec.dtype : tensor.dtype, tensor.shape});
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const Entry& entry = entries_[index];
    if (!entry.state && !weights_) {
      std::ranges::fill(out, std::byte{0});
      return;
    }
    if (!entry.state) return model_->read_rows(*entry.model, first, count, out);
    if (entry.cut.empty())
      return stored_->read_rows(stored_->at(entry.state->spec.name), first, count, out);
    for (const DistributedChunk& chunk : entry.state->chunks) {
      const int64_t begin = chunk.offsets[0] * entry.cut[0];  // rows of the cut
      if (begin < first + count && first < begin + entry.cut[0])
        copy_chunk(entry, chunk, first, count, out);
    }
  }

  // A range of a cut's elements: row by row of its last axis, as far as they are within the rows
  // [first, first + count) of the tensor.
  void copy_chunk(const Entry& entry, const DistributedChunk& chunk, int64_t first, int64_t count,
                  std::span<std::byte> out) const {
    const auto& cut = entry.cut;
    const auto& shape = tensors()[static_cast<size_t>(&entry - entries_.data())].shape;
    const auto width = static_cast<int64_t>(formats::bit_size(entry.state->spec.dtype)) / 8;
    const auto file = checkpoint_->chunk(*entry.state, chunk);
    const formats::StoredTensor& stored = *file->root().as_tensor();
    const auto bytes = file->view(stored);
    if (!bytes) refuse(*entry.state, "expected a chunk whose elements lie in a row");
    const int64_t row =
        std::accumulate(cut.begin() + 1, cut.end(), int64_t{1}, std::multiplies<>());
    const int64_t run = cut.back();
    const int64_t top = chunk.offsets[0] * cut[0];
    // Elements of the cut that lie in the wanted rows.
    const int64_t begin = std::max(chunk.offsets.back(), (first - top) * row);
    const int64_t end =
        std::min(chunk.offsets.back() + chunk.sizes.back(), (first + count - top) * row);
    for (int64_t at = begin; at < end;) {
      const int64_t length = std::min(end - at, run - at % run);
      int64_t place = 0, rest = at;
      std::vector<int64_t> index(cut.size());
      for (size_t axis = cut.size(); axis-- > 0; rest /= cut[axis]) index[axis] = rest % cut[axis];
      for (size_t axis = 0; axis < cut.size(); ++axis) {
        const int64_t whole = chunk.offsets[axis] * cut[axis] + index[axis];
        place = place * shape[axis] + (axis == 0 ? whole - first : whole);
      }
      std::memcpy(out.data() + place * width, bytes->data() + (at - chunk.offsets.back()) * width,
                  static_cast<size_t>(length * width));
      at += length;
    }
  }

  std::shared_ptr<const formats::DistributedCheckpoint> checkpoint_;
  std::unique_ptr<formats::TensorSource> stored_;  // as it lies there
  std::shared_ptr<const formats::TensorSource> model_;
  bool weights_;
  std::vector<Entry> entries_;  // of each tensor
};

}  // namespace

std::shared_ptr<const formats::TensorSource> open_optimizer_states(
    std::shared_ptr<const formats::DistributedCheckpoint> checkpoint,
    std::shared_ptr<const formats::TensorSource> model, std::string_view kind) {
  return std::make_shared<States>(std::move(checkpoint), std::move(model), kind);
}

bool names_optimizer_state(std::string_view text) { return text.find(kState) != text.npos; }

std::unordered_set<std::string> tensors_with_states(
    const formats::DistributedCheckpoint& checkpoint) {
  std::unordered_set<std::string> names;
  for (const DistributedTensor& tensor : checkpoint.metadata().tensors) {
    std::string_view kind, name;
    if (take_apart(tensor.spec.name, kind, name) && kind == kExpAvg) names.emplace(name);
  }
  return names;
}

}  // namespace qianli::convert
