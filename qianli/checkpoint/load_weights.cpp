// Weights of a model, in whatever form it stands on disk, into the flat buffers.
#include <ATen/ops/from_blob.h>
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/base/threads.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/stored_tensor.h"
#include "qianli/convert/pipeline.h"
#include "qianli/model/tuned_table.h"

namespace qianli::checkpoint {
namespace {

constexpr size_t kShownUnknown = 5;
constexpr uint64_t kFreshSeed = 1234;                  // of what the folder leaves out
constexpr int64_t kElementsAtOnce = int64_t{1} << 21;  // read by one thread

// Multi-token prediction is for training: a model may have been opened without it, and a folder may
// speak of it and hold no weights for it.
bool is_optional(const std::string& name) { return name.starts_with("mtp."); }

class WeightLoader {
 public:
  WeightLoader(const convert::ModelSource& source, nn::ParameterSet& parameters)
      : source_(source), parameters_(parameters) {
    refuse_unknown();
    for (const std::string& name : source_.reader->differing_copies()) {
      log::warn("checkpoint", "{} is not what it should repeat; it is left out", name);
    }
    match();
  }

  void load() {
    const auto ranges = convert::row_ranges(source_.table, kElementsAtOnce);
    std::vector<convert::RowRange> near, far;  // read into their place, or by way of a buffer
    for (const convert::RowRange& range : ranges) {
      if (!places_[range.parameter] || !has(range)) continue;
      const size_t place = *places_[range.parameter];
      const bool whole = parameters_.part(place).whole();
      (whole && in_place(place) ? near : far).push_back(range);
    }
    const int threads = available_cores();
    parallel_for(static_cast<int64_t>(near.size()), threads, [&](int64_t i) {
      const at::Tensor rows = target(near[static_cast<size_t>(i)]);
      read(near[static_cast<size_t>(i)], rows.scalar_type(),
           {static_cast<std::byte*>(rows.mutable_data_ptr()), rows.nbytes()});
    });
    load_far(far, threads);
    parameters_.refresh_from_master();
  }

 private:
  // A parameter of the source in the model; nothing where the model was opened without it.
  void match() {
    places_.resize(source_.table.size());
    std::vector<bool> found(parameters_.size());
    for (size_t i = 0; i < source_.table.size(); ++i) {
      const model::ParameterEntry& entry = source_.table[i];
      if (parameters_.find(entry.name) == nullptr) {
        if (is_optional(entry.name) || parameters_.is_elsewhere(entry.name)) continue;
        refuse(entry.name, "the model has no such parameter");
      }
      const size_t place = parameters_.index_of(entry.name);
      const auto& shape = parameters_.entry(place).shape;
      if (shape != entry.shape) {
        refuse(entry.name, fmt::format("expected shape {}, got {}", shape_text(shape),
                                       shape_text(entry.shape)));
      }
      places_[i] = place;
      found[place] = true;
    }
    start_fresh(found);
  }

  // Whether the rank holds anything of the rows.
  bool has(const convert::RowRange& range) const {
    const plan::ParameterPart& part = parameters_.part(*places_[range.parameter]);
    if (part.whole()) return true;
    const int64_t columns = convert::matrix_columns(source_.table[range.parameter]);
    return std::ranges::any_of(
        formats::boxes_of(part.entry.shape, range.first * columns, range.rows * columns),
        [&](const formats::Box& box) { return !plan::common(part, box).empty(); });
  }

  void start_fresh(const std::vector<bool>& found) {
    bool told = false;
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i]) continue;
      const std::string& name = parameters_.entry(i).name;
      if (model::is_adapter(name)) continue;
      if (!is_optional(name)) refuse(name, "expected in the files, found nowhere");
      parameters_.initialize(i, kFreshSeed);
      if (told) continue;
      log::warn("checkpoint", "{} has no weights for multi-token prediction; they start fresh",
                source_.path.string());
      told = true;
    }
  }

  void refuse_unknown() const {
    std::vector<std::string> unknown = source_.unused();
    if (unknown.empty()) return;
    const size_t count = unknown.size();
    if (count > kShownUnknown) unknown.resize(kShownUnknown);
    throw CheckpointError("checkpoint",
                          fmt::format("{} tensors that the model does not have: {}{}", count,
                                      join(unknown, ", "), count > kShownUnknown ? ", ..." : ""),
                          "is config.json of this model?");
  }

  [[noreturn]] void refuse(const std::string& parameter, const std::string& reason) const {
    throw CheckpointError("checkpoint",
                          fmt::format("{}: {}: {}", source_.path.string(), parameter, reason),
                          "is it of another model?");
  }

  // Whether the exact weights lie on the CPU, whole.
  bool in_place(size_t index) const {
    const bool master = parameters_.has_separate_master() && parameters_.is_trained(index);
    return parameters_.options().device().is_cpu() && !parameters_.part(index).quantized &&
           !parameters_.keeps_slices(parameters_.region_of(index)) &&
           (!master || parameters_.owned().count() == parameters_.layout().trained_size());
  }
  // [rows, columns]
  at::Tensor target(const convert::RowRange& range) const {
    const int64_t columns = convert::matrix_columns(source_.table[range.parameter]);
    return parameters_.exact(*places_[range.parameter])
        .view({-1, columns})
        .narrow(0, range.first, range.rows);
  }

  void read(const convert::RowRange& range, at::ScalarType type, std::span<std::byte> out) const {
    source_.reader->assemble(
        convert::rows_of(source_.table, range.parameter, range.first, range.rows),
        stored_dtype(type), out);
  }

  void load_far(const std::vector<convert::RowRange>& ranges, int threads) {
    const at::ScalarType type =
        parameters_.options().dtype() == at::kDouble ? at::kDouble : at::kFloat;
    auto next = ranges.begin();
    convert::Buffers buffers;
    convert::in_order(
        static_cast<int64_t>(ranges.size()), threads, buffers,
        [&](int64_t i, std::vector<std::byte>& buffer) {
          const convert::RowRange& range = ranges[static_cast<size_t>(i)];
          const int64_t elements =
              range.rows * convert::matrix_columns(source_.table[range.parameter]);
          buffer.resize(static_cast<size_t>(elements) * c10::elementSize(type));
          read(range, type, buffer);
        },
        [&](std::span<const std::byte> buffer) {
          const convert::RowRange& range = *next++;
          const int64_t columns = convert::matrix_columns(source_.table[range.parameter]);
          parameters_.write(
              *places_[range.parameter], range.first * columns,
              at::from_blob(const_cast<std::byte*>(buffer.data()), {range.rows * columns}, type));
        });
  }

  const convert::ModelSource& source_;
  nn::ParameterSet& parameters_;
  std::vector<std::optional<size_t>> places_;  // per parameter of the source
};

}  // namespace

void load_weights(const convert::ModelSource& source, nn::ParameterSet& parameters) {
  WeightLoader(source, parameters).load();
}

void load_weights(const fs::path& folder, nn::ParameterSet& parameters) {
  load_weights(*convert::open_model(folder), parameters);
}

}  // namespace qianli::checkpoint
