#include "qianli/optim/replica_gradients.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

namespace qianli::optim {

ReplicaGradients::ReplicaGradients(nn::ParameterSet& parameters, std::vector<Replicas> replicas,
                                   PartGroups parts, GradientOptions options)
    : parameters_(parameters),
      parts_(parameters, std::move(parts)),
      options_(options),
      final_(parameters.layout().units().size()),
      units_(parameters.options().dtype(parameters.master_dtype())) {
  const auto& layout = parameters.layout();
  const auto zeros = [&](int64_t count) {
    return at::zeros({count}, parameters.options().dtype(parameters.master_dtype()));
  };
  TORCH_CHECK(replicas.size() == layout.trained_regions(), "[optim] expected replicas of ",
              layout.trained_regions(), " regions, got ", replicas.size());
  const bool slices = options.slices && std::ranges::any_of(replicas, [](const Replicas& each) {
                        return !each.within.alone();
                      });
  if (!slices) whole_ = zeros(layout.trained_size());
  for (size_t r = 0; r < replicas.size(); ++r) {
    Region region{.of = layout.regions()[r], .replicas = std::move(replicas[r])};
    const bool shared = !region.replicas.within.alone();
    region.slices = slices && shared;
    const nn::FlatRange& range = region.of.range;
    if (!region.slices)
      region.whole = slices ? zeros(range.count()) : whole_.narrow(0, range.begin, range.count());
    region.own = shared ? zeros(region.of.own.count()) : region.whole;
    regions_.push_back(std::move(region));
  }
  buckets_.resize(layout.buckets().size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters.is_trained(i)) continue;
    const Region& region = regions_[parameters.region_of(i)];
    if (region.slices) continue;
    const nn::FlatPlace& place = parameters.place(i);
    parameters.at(i).attach_grad(
        region.whole.narrow(0, place.offset - region.of.range.begin, place.count)
            .view(parameters.part(i).shape));
  }
  for (size_t b = 0; b < buckets_.size(); ++b) {
    if (region_of(b) && region_of(b)->slices) attach(b);
  }
}

const ReplicaGradients::Region* ReplicaGradients::region_of(size_t bucket) const {
  const size_t region = parameters_.layout().buckets()[bucket].region;
  return region < regions_.size() ? &regions_[region] : nullptr;
}

void ReplicaGradients::attach(size_t bucket) {
  const auto& of = parameters_.layout().buckets()[bucket];
  TORCH_CHECK(of.units.size() == 1, "[optim] expected a bucket for each unit");
  Bucket& own = buckets_[bucket];
  own.buffer = units_.add(of.range.count());
  units_.take(own.buffer);  // views are made of tensors that have memory
  int64_t end = of.range.begin;
  for (const size_t i : parameters_in(of.units.front(), of.region)) {
    const nn::FlatPlace& place = parameters_.place(i);
    if (place.offset > end)
      own.gaps.push_back({end - of.range.begin, place.offset - of.range.begin});
    end = place.offset + place.count;
    parameters_.at(i).attach_grad(units_.at(own.buffer)
                                      .narrow(0, place.offset - of.range.begin, place.count)
                                      .view(parameters_.part(i).shape),
                                  [this, bucket] { need(bucket); });
  }
  if (of.range.end > end) own.gaps.push_back({end - of.range.begin, of.range.count()});
  units_.release(own.buffer);
}

std::vector<size_t> ReplicaGradients::parameters_in(size_t unit, size_t region) const {
  std::vector<size_t> found;
  const auto& of = parameters_.layout().units()[unit];
  for (size_t i = of.first; i < of.last; ++i) {
    if (parameters_.is_trained(i) && parameters_.region_of(i) == region) found.push_back(i);
  }
  return found;
}

void ReplicaGradients::need(size_t bucket) {
  Bucket& own = buckets_[bucket];
  const auto travels = [&] {
    return std::ranges::any_of(travelling_,
                               [&](const Travel& travel) { return travel.bucket == bucket; });
  };
  while (travels()) arrive();  // what an earlier pass left is still on its way
  if (units_.is_there(own.buffer)) return;
  units_.take(own.buffer);
  for (const nn::FlatRange& gap : own.gaps)
    units_.at(own.buffer).narrow(0, gap.begin, gap.count()).zero_();
}

void ReplicaGradients::reset() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_.is_trained(i)) parameters_.at(i).reset_grad();
  }
  final_.assign(final_.size(), false);
  for (size_t b = 0; b < buckets_.size(); ++b) {
    buckets_[b].waiting = parameters_.layout().buckets()[b].units.size();
    buckets_[b].has_sum = false;
  }
}

void ReplicaGradients::complete(const std::vector<size_t>& parameters) {
  for (const size_t i : parameters) parameters_.at(i).grad();
  parts_.sum(parameters);
}

void ReplicaGradients::added(size_t unit) {
  for (size_t r = 0; r < regions_.size(); ++r) {
    if (!regions_[r].slices || parameters_.layout().units()[unit].pieces[r].count() == 0) continue;
    const std::vector<size_t> parameters = parameters_in(unit, r);
    complete(parameters);
    const auto& buckets = parameters_.layout().buckets();
    for (size_t b = 0; b < buckets.size(); ++b) {
      if (buckets[b].region == r && buckets[b].units.front() == unit) send(b);
    }
    for (const size_t i : parameters) parameters_.at(i).reset_grad();
  }
}

void ReplicaGradients::are_final(const nn::Units& units) {
  if (options_.overlap) make_final(units);
}

void ReplicaGradients::make_final(const nn::Units& units) {
  nn::Units now;
  std::vector<size_t> parameters;
  for (const size_t unit : units) {
    if (final_[unit]) continue;
    final_[unit] = true;
    now.push_back(unit);
    for (size_t r = 0; r < regions_.size(); ++r) {
      if (regions_[r].slices) continue;
      const auto own = parameters_in(unit, r);
      parameters.insert(parameters.end(), own.begin(), own.end());
    }
  }
  complete(parameters);
  const auto& buckets = parameters_.layout().buckets();
  // A backward pass ends at the front of the flat buffer.
  for (size_t b = buckets.size(); b-- > 0;) {
    if (!region_of(b) || region_of(b)->slices) continue;
    const auto in_bucket = std::ranges::count_if(now, [&](size_t unit) {
      return std::ranges::find(buckets[b].units, unit) != buckets[b].units.end();
    });
    if (in_bucket == 0) continue;
    buckets_[b].waiting -= static_cast<size_t>(in_bucket);
    if (buckets_[b].waiting == 0) send(b);
  }
}

at::Tensor ReplicaGradients::as_sent(const at::Tensor& gradients) const {
  return options_.travels_as ? gradients.to(*options_.travels_as) : gradients;
}

at::Tensor ReplicaGradients::own_of(size_t bucket) const {
  const auto& of = parameters_.layout().buckets()[bucket];
  const Region& region = regions_[of.region];
  if (region.replicas.within.alone())
    return region.own.narrow(0, of.range.begin - region.of.range.begin, of.range.count());
  return region.own.narrow(0, of.own.place - region.of.own.begin, of.own.count);
}

void ReplicaGradients::send(size_t bucket) {
  const auto& of = parameters_.layout().buckets()[bucket];
  const Region& region = regions_[of.region];
  if (region.replicas.alone()) return;
  const at::Tensor whole =
      region.slices
          ? units_.at(buckets_[bucket].buffer)
          : region.whole.narrow(0, of.range.begin - region.of.range.begin, of.range.count());
  Travel travel{.pending = {}, .bucket = bucket, .sent = as_sent(whole), .received = {}};
  if (region.replicas.within.alone()) {
    travel.received = travel.sent;
    travel.pending = region.replicas.across.start_all_reduce(travel.sent);
  } else {
    // Straight to where it is kept, unless it is added there or comes in another form.
    const bool direct = !region.slices && !options_.travels_as;
    travel.received = direct ? own_of(bucket) : at::empty({of.own.count}, travel.sent.options());
    travel.pending = region.replicas.within.start_reduce_scatter(travel.received, travel.sent);
  }
  if (region.slices && options_.travels_as) units_.release(buckets_[bucket].buffer);
  travelling_.push_back(std::move(travel));
  // One travels while the gradients of the next one come; more would take memory.
  const size_t most = options_.overlap ? 1 : 0;
  while ((region.slices || options_.travels_as) && travelling_.size() > most) arrive();
}

void ReplicaGradients::arrive() {
  Travel travel = std::move(travelling_.front());
  travelling_.pop_front();
  travel.pending.wait();
  Bucket& bucket = buckets_[travel.bucket];
  const Region& region = regions_[parameters_.layout().buckets()[travel.bucket].region];
  const at::Tensor own = own_of(travel.bucket);
  if (bucket.has_sum) {
    own.add_(travel.received);
  } else if (!own.is_alias_of(travel.received)) {
    own.copy_(travel.received);
  }
  if (!region.slices) return;
  bucket.has_sum = true;
  units_.release(bucket.buffer);
}

void ReplicaGradients::finish() {
  nn::Units all(final_.size());
  for (size_t u = 0; u < all.size(); ++u) all[u] = u;
  make_final(all);
  while (!travelling_.empty()) arrive();
  for (size_t b = 0; b < buckets_.size(); ++b) {
    if (!region_of(b) || !region_of(b)->slices) continue;
    TORCH_CHECK(!units_.is_there(buckets_[b].buffer),
                "[optim] expected added() after every backward pass, got none for ",
                parameters_.layout().units()[parameters_.layout().buckets()[b].units[0]].name);
    if (!buckets_[b].has_sum) own_of(b).zero_();
  }
  for (const Region& region : regions_) sum_across(region);
}

void ReplicaGradients::sum_across(const Region& region) {
  const dist::Group& across = region.replicas.across;
  if (region.replicas.within.alone() || across.alone()) return;
  const at::Tensor sent = as_sent(region.own);
  across.all_reduce(sent);
  if (!sent.is_alias_of(region.own)) region.own.copy_(sent);
}

at::Tensor ReplicaGradients::own(const nn::FlatRanges::Part& part) const {
  const Region& region =
      part.begin < regions_.front().of.range.end ? regions_.front() : regions_.back();
  return region.own.narrow(0, part.place - region.of.own.begin, part.count);
}

bool ReplicaGradients::counts(const nn::FlatRanges::Part& part) const {
  return (part.begin < regions_.front().of.range.end ? regions_.front() : regions_.back())
      .replicas.counts();
}

void ReplicaGradients::sum_own(const dist::Group& group, const nn::Units& units) {
  const auto& buckets = parameters_.layout().buckets();
  for (size_t b = 0; b < buckets.size(); ++b) {
    if (region_of(b) && std::ranges::find(units, buckets[b].units.front()) != units.end())
      group.all_reduce(own_of(b));
  }
}

const at::Tensor& ReplicaGradients::whole() const {
  TORCH_CHECK(whole_.defined(), "[optim] expected whole gradients, got slices of them");
  return whole_;
}

int64_t ReplicaGradients::kept_bytes() const {
  size_t bytes = 0;
  for (const Region& region : regions_) {
    if (region.whole.defined()) bytes += region.whole.nbytes();
    if (!region.own.is_same(region.whole)) bytes += region.own.nbytes();
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace qianli::optim
