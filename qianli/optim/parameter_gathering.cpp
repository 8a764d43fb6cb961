#include "qianli/optim/parameter_gathering.h"

#include <algorithm>

#include "qianli/optim/gathering_by_use.h"

namespace qianli::optim {
namespace {

// Values are kept whole: after an update the slices of other ranks come in, bucket by bucket, in
// the order in which the units were first used since the update before.
class GatheringAfterUpdate : public ParameterGathering {
 public:
  GatheringAfterUpdate(nn::ParameterSet& parameters, std::vector<Replicas> replicas,
                       GatheringOptions options)
      : parameters_(parameters), replicas_(std::move(replicas)), options_(options) {
    for (size_t b = 0; b < buckets().size(); ++b) {
      const size_t region = buckets()[b].region;
      const bool changes = !parameters_.layout().regions()[region].frozen;
      if (changes && !replicas_[region].within.alone()) order_.push_back(b);
    }
    states_.resize(buckets().size());
  }

  void use(const nn::Units& units) override {
    if (order_.size() == used_.size()) return;
    for (const size_t b : order_) {
      const nn::Units& inside = buckets()[b].units;
      const bool wanted = std::ranges::any_of(
          units, [&](size_t unit) { return std::ranges::find(inside, unit) != inside.end(); });
      if (wanted && states_[b].is_old) finish(b);
    }
    start_next();
  }

  void let_go(const nn::Units&) override {}

  void updated() override {
    for (const size_t b : order_) states_[b].is_old = true;
    // What was not used at all comes last.
    if (!used_.empty()) order_ = std::exchange(used_, {});
    if (!options_.overlap) return complete();
    start_next();
  }

  void complete() override {
    for (const size_t b : order_) {
      if (states_[b].is_old) start(b);
    }
    for (const size_t b : order_) {
      if (states_[b].is_old) finish(b);
    }
  }

 private:
  struct State {
    bool is_old = false;
    bool travels = false;
    dist::Pending pending;
  };
  const std::vector<nn::FlatLayout::Bucket>& buckets() const {
    return parameters_.layout().buckets();
  }

  // Keeps so many on their way as are to be ahead.
  void start_next() {
    int64_t travelling = 0;
    for (const size_t b : order_) {
      if (!states_[b].is_old) continue;
      if (travelling++ == std::max<int64_t>(options_.ahead, 1)) return;
      start(b);
    }
  }

  void start(size_t b) {
    State& state = states_[b];
    if (state.travels) return;
    const auto& bucket = buckets()[b];
    // A copy of the slice: it is a part of what is written.
    state.pending = replicas_[bucket.region].within.start_all_gather(
        parameters_.values({bucket.range.begin, bucket.range.count(), 0}),
        parameters_.values(bucket.own).clone());
    state.travels = true;
  }

  void finish(size_t b) {
    start(b);
    states_[b].pending.wait();
    states_[b].is_old = states_[b].travels = false;
    used_.push_back(b);
  }

  nn::ParameterSet& parameters_;
  std::vector<Replicas> replicas_;
  GatheringOptions options_;
  std::vector<State> states_;  // of the buckets
  std::vector<size_t> order_;  // of those that ranks share
  std::vector<size_t> used_;   // in the order of their first use since the update
};

}  // namespace

std::unique_ptr<ParameterGathering> make_gathering(nn::ParameterSet& parameters,
                                                   std::vector<Replicas> replicas,
                                                   GatheringOptions options) {
  const auto& regions = parameters.layout().regions();
  for (size_t r = 0; r < regions.size(); ++r) {
    TORCH_CHECK(regions[r].owner.ranks == replicas[r].within.size() &&
                    regions[r].owner.rank == replicas[r].within.rank(),
                "[optim] expected the slices of rank ", replicas[r].within.rank(), " of ",
                replicas[r].within.size(), ", got those of ", regions[r].owner.rank, " of ",
                regions[r].owner.ranks);
  }
  const bool by_use =
      std::ranges::any_of(regions, [](const auto& region) { return region.owner.keeps_slices; });
  if (by_use) return std::make_unique<GatheringByUse>(parameters, std::move(replicas), options);
  return std::make_unique<GatheringAfterUpdate>(parameters, std::move(replicas), options);
}

}  // namespace qianli::optim
