#include "qianli/optim/gathering_by_use.h"

#include <algorithm>

namespace qianli::optim {

GatheringByUse::GatheringByUse(nn::ParameterSet& parameters, std::vector<Replicas> replicas,
                               GatheringOptions options)
    : parameters_(parameters), replicas_(std::move(replicas)), options_(options) {
  if (!options_.overlap) options_.ahead = 0;
  const nn::FlatLayout& layout = parameters.layout();
  units_.resize(layout.units().size());
  for (const auto& bucket : layout.buckets()) {
    if (!parameters.keeps_slices(bucket.region)) continue;
    TORCH_CHECK(bucket.units.size() == 1, "[optim] expected a bucket for each unit");
    const int64_t first = bucket.own.place - layout.regions()[bucket.region].own.begin;
    units_[bucket.units.front()].pieces.push_back(
        {.region = bucket.region,
         .buffer = parameters.gathered_piece(bucket.units.front(), bucket.region),
         .kept = {first, first + bucket.own.count},
         .near = {}});
  }
}

void GatheringByUse::begin(uint64_t number) {
  known_[number_] = std::move(seen_);
  number_ = number;
  seen_.clear();
  expected_ = known_[number];
  free_unused();
}

void GatheringByUse::use(const nn::Units& units) {
  for (const size_t u : units) {
    if (seen_.size() < expected_.size() && expected_[seen_.size()] != u) expected_.clear();
    seen_.push_back(u);
    ++units_[u].users;
    start(u);
  }
  for (const size_t u : units) {
    for (dist::Pending& each : units_[u].pending) each.wait();
    units_[u].pending.clear();
  }
  for (size_t i = 0; i < static_cast<size_t>(options_.ahead); ++i) {
    if (seen_.size() + i < expected_.size()) start(expected_[seen_.size() + i]);
  }
}

void GatheringByUse::let_go(const nn::Units& units) {
  for (const size_t u : units) {
    if (--units_[u].users == 0 && !comes_soon(u)) free(u);
  }
}

void GatheringByUse::updated() {
  free_unused();
  for (Unit& unit : units_) {
    TORCH_CHECK(!unit.is_whole, "[optim] expected an update while no parameters are in use");
    for (Piece& piece : unit.pieces) piece.near.reset();
  }
}

bool GatheringByUse::comes_soon(size_t unit) const {
  const size_t begin = std::min(seen_.size(), expected_.size());
  const size_t end = std::min(begin + static_cast<size_t>(options_.ahead), expected_.size());
  return std::find(expected_.begin() + static_cast<int64_t>(begin),
                   expected_.begin() + static_cast<int64_t>(end),
                   unit) != expected_.begin() + static_cast<int64_t>(end);
}

void GatheringByUse::start(size_t u) {
  Unit& unit = units_[u];
  if (unit.is_whole) return;
  unit.is_whole = true;
  for (const Piece& piece : unit.pieces) {
    const Replicas& replicas = replicas_[piece.region];
    parameters_.gathered().take(piece.buffer);
    const at::Tensor& whole = parameters_.gathered().at(piece.buffer);
    if (piece.near.defined()) {
      unit.pending.push_back(replicas.near.start_all_gather(whole, piece.near));
    } else {
      const at::Tensor& kept = parameters_.kept(piece.region);
      unit.pending.push_back(replicas.within.start_all_gather(
          whole, kept.narrow(0, piece.kept.begin, piece.kept.count())));
    }
  }
}

void GatheringByUse::free(size_t u) {
  Unit& unit = units_[u];
  if (!unit.is_whole) return;
  for (dist::Pending& each : unit.pending) each.wait();
  unit.pending.clear();
  unit.is_whole = false;
  for (Piece& piece : unit.pieces) {
    const dist::Group& near = replicas_[piece.region].near;
    const at::Tensor& whole = parameters_.gathered().at(piece.buffer);
    if (!near.alone() && !piece.near.defined()) {
      const nn::FlatRange slice = nn::slice_of({0, whole.numel()}, near.size(), near.rank());
      piece.near = whole.narrow(0, slice.begin, slice.count()).clone();
    }
    parameters_.gathered().release(piece.buffer);
  }
}

void GatheringByUse::free_unused() {
  for (size_t u = 0; u < units_.size(); ++u) {
    if (units_[u].users == 0) free(u);
  }
}

}  // namespace qianli::optim
