#include "qianli/nn/parameter_set.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "qianli/base/threads.h"
#include "qianli/config/tune_section.h"
#include "qianli/model/tuned_table.h"
#include "qianli/nn/attached_adapters.h"
#include "qianli/ops/quantized_weight.h"

namespace qianli::nn {
namespace {

constexpr int64_t kInitialiserChunk = int64_t{1} << 18;

int64_t aligned(int64_t count) {
  return (count + kFlatAlignment - 1) / kFlatAlignment * kFlatAlignment;
}

// A stretch of a parameter to fill: contiguous in what the rank holds, in the whole, and in the
// values that are made.
struct Piece {
  int64_t first = 0, whole_first = 0, count = 0;
};

// Elements [range.begin, range.end) of the part, in pieces that keep all threads busy; `first` is
// where they go.
void add_pieces(const plan::ParameterPart& part, const FlatRange& range, int64_t first,
                std::vector<Piece>& pieces) {
  for (const plan::Run& run : plan::runs(part)) {
    const int64_t begin = std::max(run.first, range.begin);
    const int64_t end = std::min(run.first + run.count, range.end);
    for (int64_t next = begin; next < end; next += kInitialiserChunk) {
      pieces.push_back({first + next - range.begin, run.whole_first + next - run.first,
                        std::min(kInitialiserChunk, end - next)});
    }
  }
}

std::vector<std::vector<plan::IndexRange>> kept_of(const formats::Box& box) {
  std::vector<std::vector<plan::IndexRange>> kept;
  for (size_t axis = 0; axis < box.shape.size(); ++axis) {
    kept.push_back({{box.offset[axis], box.offset[axis] + box.shape[axis]}});
  }
  return kept;
}

}  // namespace

ParameterSet::ParameterSet(const model::ModelSpec& spec, at::ScalarType dtype, at::Device device,
                           bool master, const plan::ModelPart& part, const FlatOwners& owners,
                           const config::TuneConfig* tune)
    : tune_(std::make_shared<config::TuneConfig>(tune ? *tune : config::TuneConfig())),
      attached_(std::make_shared<AttachedAdapters>()),
      parts_(plan::parameter_parts(spec, part, *tune_)),
      layout_(parts_, owners),
      options_(at::TensorOptions().device(device).dtype(dtype)),
      gathered_(options_) {
  count();
  make_values();
  const bool exact = dtype == at::kFloat || dtype == at::kDouble;
  if (master && !exact) master_ = at::zeros({owned().count()}, options_.dtype(at::kFloat));
  for (size_t i = 0; i < parts_.size(); ++i) {
    const auto& entry = parts_[i].entry;
    index_[entry.name] = i;
    buffers_.push_back(entry.buffer ? at::zeros(parts_[i].shape, options_.dtype(at::kFloat))
                                    : at::Tensor());
    at::Tensor value = buffers_[i];
    const auto& region = layout_.regions()[region_of(i)];
    // With a version of its own: while one layer computes, what is gathered of others is written.
    if (!entry.buffer && !parts_[i].quantized && !keeps_slices_of(i))
      value = view_from(kept_[region_of(i)].variable_data(), region.range.begin, i);
    parameters_.push_back(std::make_unique<ops::Parameter>(entry.name, value));
    quantized_.push_back(parts_[i].quantized ? make_quantized(i) : nullptr);
  }
  make_pieces();
  for (const auto& [entry, frozen, quantized] : model::tuned_table(spec, *tune_)) {
    if (!index_.contains(entry.name)) elsewhere_.insert(entry.name);
  }
}

std::shared_ptr<ops::QuantizedWeight> ParameterSet::make_quantized(size_t index) {
  const std::vector<int64_t>& shape = parts_[index].shape;
  // 4 bits are too few for the output layer, whose errors no later one makes up for.
  const bool in_layer = parts_[index].entry.layer >= 0;
  auto weight = std::make_shared<ops::QuantizedWeight>(
      shape, in_layer ? ops::code_of(tune_->quantization) : ops::WeightCode::kQ8_0,
      tune_->double_quant, options_);
  parameters_[index]->make_value(at::empty({}, options_).expand(shape),
                                 [weight] { return weight->value(); });
  return weight;
}

void ParameterSet::make_values() {
  const auto& regions = layout_.regions();
  const bool whole = std::ranges::none_of(
      regions, [](const FlatLayout::Region& region) { return region.owner.keeps_slices; });
  if (whole) flat_ = at::zeros({flat_size()}, options_);
  for (const auto& region : regions) {
    if (whole) {
      kept_.push_back(flat_.narrow(0, region.range.begin, region.range.count()));
    } else {
      const FlatRange& kept = region.owner.keeps_slices ? region.own : region.range;
      kept_.push_back(at::zeros({kept.count()}, options_));
    }
  }
}

void ParameterSet::make_pieces() {
  for (size_t r = 0; r < layout_.regions().size(); ++r) {
    if (!keeps_slices(r)) continue;
    for (size_t u = 0; u < layout_.units().size(); ++u) {
      const FlatLayout::Unit& unit = layout_.units()[u];
      const size_t piece = gathered_.add(unit.pieces[r].count());
      pieces_[{u, r}] = piece;
      gathered_.take(piece);  // views are made of tensors that have memory
      // With a version of their own: autograd is to see what is gathered later.
      const at::Tensor values = gathered_.at(piece).variable_data();
      for (size_t i = unit.first; i < unit.last; ++i) {
        if (region_of(i) == r && place(i).count > 0)
          parameters_[i]->place_value(view_from(values, unit.pieces[r].begin, i));
      }
      gathered_.release(piece);
    }
  }
}

void ParameterSet::count() {
  std::vector<FlatRange> ranges;
  int64_t next = -1;  // where the neighbour of the last range begins, if all before it counts
  for (size_t i = 0; i < parts_.size(); ++i) {
    const int64_t begin = place(i).offset, end = begin + parts_[i].counted;
    if (!is_trained(i) || begin == end) continue;
    // Gaps hold zeros: neighbours go together.
    if (next == begin) {
      ranges.back().end = end;
    } else {
      ranges.push_back({begin, end});
    }
    next = parts_[i].counted == place(i).count ? aligned(end) : -1;
  }
  std::ranges::sort(ranges, {}, &FlatRange::begin);
  counted_ = FlatRanges(ranges);
}

Units ParameterSet::units_with(const std::string& prefix) const {
  Units found;
  for (size_t u = 0; u < layout_.units().size(); ++u) {
    if (entry(layout_.units()[u].first).name.starts_with(prefix)) found.push_back(u);
  }
  return found;
}

at::Tensor ParameterSet::view_from(const at::Tensor& values, int64_t begin, size_t index) const {
  return values.narrow(0, place(index).offset - begin, place(index).count)
      .view(parts_[index].shape);
}

at::Tensor ParameterSet::view(const at::Tensor& flat, size_t index) const {
  return view_from(flat, 0, index);
}

bool ParameterSet::keeps_slices_of(size_t index) const {
  return place(index).count > 0 && keeps_slices(region_of(index));
}

std::vector<FlatRange> ParameterSet::kept_ranges(size_t index) const {
  if (!keeps_slices_of(index)) return {{0, parts_[index].elements()}};
  std::vector<FlatRange> ranges;
  const FlatPlace& place = this->place(index);
  for (const auto& part :
       layout_.slices_with(region_of(index)).within(place.offset, place.offset + place.count)) {
    ranges.push_back({part.begin - place.offset, part.begin - place.offset + part.count});
  }
  return ranges;
}

void ParameterSet::initialize(uint64_t seed) {
  for (size_t i = 0; i < parts_.size(); ++i) initialize(i, seed);
}

void ParameterSet::initialize(size_t index, uint64_t seed) {
  std::vector<Piece> pieces;
  int64_t count = 0;
  const std::vector<FlatRange> ranges = kept_ranges(index);
  for (const FlatRange& range : ranges) {
    add_pieces(parts_[index], range, count, pieces);
    count += range.count();
  }
  std::vector<float> values(static_cast<size_t>(count));
  parallel_for(static_cast<int64_t>(pieces.size()), available_cores(), [&](int64_t i) {
    const Piece& piece = pieces[static_cast<size_t>(i)];
    model::initial_values(entry(index), seed, piece.whole_first,
                          std::span(values).subspan(static_cast<size_t>(piece.first),
                                                    static_cast<size_t>(piece.count)));
  });
  const at::Tensor made = at::from_blob(values.data(), {count}, at::kFloat);
  int64_t first = 0;
  for (const FlatRange& range : ranges) {
    write_own(index, range.begin, made.narrow(0, first, range.count()));
    first += range.count();
  }
}

void ParameterSet::write(size_t index, int64_t first, const at::Tensor& values) {
  const plan::ParameterPart& part = parts_[index];
  if (part.whole()) return write_own(index, first, values);
  const at::Tensor flat = values.flatten();
  int64_t next = 0;
  for (const formats::Box& box : formats::boxes_of(part.entry.shape, first, flat.numel())) {
    const at::Tensor source = flat.narrow(0, next, box.elements()).view(box.shape);
    next += box.elements();
    for (const plan::PlacedBox& shared : plan::common(part, box)) {
      at::Tensor own = source;
      for (size_t axis = 0; axis < box.shape.size(); ++axis) {
        own = own.narrow(static_cast<int64_t>(axis), shared.whole.offset[axis] - box.offset[axis],
                         shared.whole.shape[axis]);
      }
      write_box(index, shared.local, own);
    }
  }
}

void ParameterSet::write_box(size_t index, const formats::Box& box, const at::Tensor& values) {
  const std::vector<int64_t>& shape = parts_[index].shape;
  const bool kept_as_is = !has_master(index) && !keeps_slices_of(index) && !quantized_[index];
  if (entry(index).buffer || kept_as_is) {
    at::Tensor target = exact(index);
    for (size_t axis = 0; axis < shape.size(); ++axis) {
      target = target.narrow(static_cast<int64_t>(axis), box.offset[axis], box.shape[axis]);
    }
    target.copy_(values);
    return;
  }
  // There may be slices only: run by run.
  const at::Tensor own = values.contiguous().view(-1);
  const plan::ParameterPart whole{
      .entry = {.shape = shape}, .shape = box.shape, .kept = kept_of(box)};
  for (const plan::Run& run : plan::runs(whole)) {
    write_own(index, run.whole_first, own.narrow(0, run.first, run.count));
  }
}

void ParameterSet::write_own(size_t index, int64_t first, const at::Tensor& values) {
  const at::Tensor source = values.flatten();
  if (entry(index).buffer) {
    buffers_[index].view(-1).narrow(0, first, source.numel()).copy_(source);
    return;
  }
  if (quantized_[index]) return quantized_[index]->write(first, source);
  const int64_t begin = place(index).offset + first;
  const bool slices = keeps_slices_of(index);
  if (!slices) this->values({begin, source.numel(), 0}).copy_(source);
  if (!slices && !has_master(index)) return;
  for (const auto& part :
       layout_.slices_with(region_of(index)).within(begin, begin + source.numel())) {
    const at::Tensor own = source.narrow(0, part.begin - begin, part.count);
    if (slices) this->values(part).copy_(own);
    if (has_master(index)) master(part).copy_(own);
  }
}

at::Tensor ParameterSet::master(const FlatRanges::Part& part) const {
  return has_separate_master() ? master_.narrow(0, part.place, part.count) : values(part);
}

at::Tensor ParameterSet::values(const FlatRanges::Part& part) const {
  const size_t number = layout_.region_at(part.begin);
  const FlatLayout::Region& region = layout_.regions()[number];
  const at::Tensor& kept = kept_[number];
  return region.owner.keeps_slices ? kept.narrow(0, part.place - region.own.begin, part.count)
                                   : kept.narrow(0, part.begin - region.range.begin, part.count);
}

const at::Tensor& ParameterSet::flat() const {
  TORCH_CHECK(flat_.defined(), "[nn] expected whole parameters, got slices of them");
  return flat_;
}

at::ScalarType ParameterSet::master_dtype() const {
  return has_separate_master() ? at::kFloat : options_.dtype().toScalarType();
}

int64_t ParameterSet::kept_bytes() const {
  size_t bytes = has_separate_master() ? master_.nbytes() : 0;
  for (const at::Tensor& kept : kept_) bytes += kept.nbytes();
  for (const auto& weight : quantized_) bytes += weight ? weight->bytes() : 0;
  return static_cast<int64_t>(bytes);
}

at::Tensor ParameterSet::exact(size_t index) const {
  if (entry(index).buffer) return buffers_[index];
  if (quantized_[index]) return quantized_[index]->value();
  TORCH_CHECK(
      !keeps_slices_of(index) && (!has_master(index) || owned().count() == layout_.trained_size()),
      "[nn] expected a whole master, got slices of it");
  if (has_master(index)) return view(master_, index);
  return view_from(kept_[region_of(index)], layout_.regions()[region_of(index)].range.begin, index);
}

void ParameterSet::refresh_from_master() {
  if (!has_separate_master()) return;
  for (const auto& part : owned().parts()) values(part).copy_(master(part));
}

ops::Parameter& ParameterSet::at(const std::string& name) { return *parameters_[index_.at(name)]; }

ops::Parameter* ParameterSet::find(const std::string& name) {
  const auto place = index_.find(name);
  return place == index_.end() ? nullptr : parameters_[place->second].get();
}

}  // namespace qianli::nn
