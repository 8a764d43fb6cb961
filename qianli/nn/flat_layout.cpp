#include "qianli/nn/flat_layout.h"

#include <algorithm>
#include <string_view>

namespace qianli::nn {
namespace {

constexpr std::string_view kWordEmbedding = "embedding.word_embeddings.weight";
constexpr std::string_view kEmbedding = "embedding.";

int64_t rounded_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// "decoder.layers.3", "mtp.layers.0", "decoder.final_layernorm", "output_layer". The word embedding
// is apart from the rest of what embeds: stages of a pipeline share the one, or both.
std::string unit_of(const std::string& parameter) {
  if (parameter == kWordEmbedding) return parameter;
  if (parameter.starts_with(kEmbedding)) return "embedding";
  const size_t layers = parameter.find(".layers.");
  if (layers == parameter.npos) return parameter.substr(0, parameter.rfind('.'));
  return parameter.substr(0, parameter.find('.', layers + std::string_view(".layers.").size()));
}

}  // namespace

FlatLayout::FlatLayout(const std::vector<plan::ParameterPart>& parts, const FlatOwners& owners) {
  find_units(parts);
  place(parts, owners);
  owned_ = deal_out(/*frozen=*/false);
  frozen_ = deal_out(/*frozen=*/true);
  find_buckets();
}

void FlatLayout::find_units(const std::vector<plan::ParameterPart>& parts) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string name = unit_of(parts[i].entry.name);
    if (units_.empty() || units_.back().name != name) {
      units_.push_back({.name = name,
                        .first = i,
                        .last = i,
                        .pieces = {},
                        .embeds = parts[i].entry.name.starts_with(kEmbedding)});
    }
    units_.back().last = i + 1;
  }
}

void FlatLayout::place(const std::vector<plan::ParameterPart>& parts, const FlatOwners& owners) {
  places_.resize(parts.size());
  region_of_.resize(parts.size());
  const bool any_frozen =
      std::ranges::any_of(parts, [](const plan::ParameterPart& part) { return part.frozen; });
  for (const bool frozen : {false, true}) {
    if (frozen && !any_frozen) break;
    lay_out(parts, owners, {.range = {}, .owner = owners.dense, .own = {}, .frozen = frozen});
    if (!owners.experts) continue;
    lay_out(parts, owners,
            {.range = {}, .owner = *owners.experts, .own = {}, .experts = true, .frozen = frozen});
  }
}

void FlatLayout::lay_out(const std::vector<plan::ParameterPart>& parts, const FlatOwners& owners,
                         Region region) {
  const int64_t ranks = region.owner.ranks;
  const int64_t unit_alignment = ranks == 1 ? 1 : kFlatAlignment * ranks;
  const int64_t step =
      rounded_up(std::max<int64_t>(owners.bucket_elements, 1), kFlatAlignment * ranks);
  const auto is_inside = [&](const plan::ParameterPart& part) {
    return part.frozen == region.frozen &&
           (!owners.experts || part.entry.expert == region.experts);
  };
  region.range.begin = size_;
  int64_t run_begin = size_;
  for (size_t u = 0; u < units_.size(); ++u) {
    Unit& unit = units_[u];
    const int64_t begin = size_;
    for (size_t i = unit.first; i < unit.last; ++i) {
      if (!is_inside(parts[i])) continue;
      region_of_[i] = regions_.size();
      const bool apart = parts[i].entry.buffer || parts[i].quantized;
      places_[i] = {size_, apart ? 0 : parts[i].elements()};
      size_ += rounded_up(places_[i].count, kFlatAlignment);
    }
    // Stages that share what embeds must cut it alike: no bucket of it has anything else.
    const bool ends_run =
        owners.bucket_is_unit || unit.embeds || u + 1 == units_.size() || units_[u + 1].embeds;
    if (ends_run) {
      size_ = run_begin + rounded_up(size_ - run_begin, unit_alignment);
      cut({run_begin, size_}, regions_.size(), owners.bucket_is_unit ? size_ : step);
      run_begin = size_;
    }
    unit.pieces.push_back({begin, size_});
  }
  region.range.end = size_;
  regions_.push_back(region);
}

void FlatLayout::cut(const FlatRange& run, size_t region, int64_t step) {
  for (int64_t begin = run.begin; begin < run.end; begin += step) {
    buckets_.push_back({.range = {begin, std::min(begin + step, run.end)},
                        .region = region,
                        .units = {},
                        .own = {}});
  }
}

FlatRanges FlatLayout::deal_out(bool frozen) {
  std::vector<FlatRange> ranges;
  for (size_t r = 0; r < regions_.size(); ++r) {
    Region& region = regions_[r];
    if (region.frozen != frozen) continue;
    region.own.begin = FlatRanges(ranges).count();
    if (region.owner.ranks == 1) {
      ranges.push_back(region.range);
    } else {
      for (const Bucket& bucket : buckets_) {
        if (bucket.region == r)
          ranges.push_back(slice_of(bucket.range, region.owner.ranks, region.owner.rank));
      }
    }
    region.own.end = FlatRanges(ranges).count();
  }
  return FlatRanges(ranges);
}

void FlatLayout::find_buckets() {
  for (Bucket& bucket : buckets_) {
    bucket.own = slices_with(bucket.region).within(bucket.range.begin, bucket.range.end).front();
    for (size_t u = 0; u < units_.size(); ++u) {
      const FlatRange& piece = units_[u].pieces[bucket.region];
      if (piece.begin < bucket.range.end && bucket.range.begin < piece.end)
        bucket.units.push_back(u);
    }
  }
}

size_t FlatLayout::region_at(int64_t offset) const {
  const auto holds = [&](const Region& region) { return offset < region.range.end; };
  const auto found = std::ranges::find_if(regions_, holds);
  return found == regions_.end() ? regions_.size() - 1
                                 : static_cast<size_t>(found - regions_.begin());
}

size_t FlatLayout::trained_regions() const {
  return static_cast<size_t>(std::ranges::count(regions_, false, &Region::frozen));
}

int64_t FlatLayout::trained_size() const { return regions_[trained_regions() - 1].range.end; }

}  // namespace qianli::nn
