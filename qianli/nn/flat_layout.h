// Where parameters lie in the flat buffers, and how these are dealt out to the ranks that hold the
// same parameters (ZeRO, Rajbhandari et al. 2020; Megatron-core's distributed optimizer).
//
// A unit is what a pass uses at once: a decoder layer, the word embedding, the rest of what embeds,
// the final norm, the output layer, a layer of multi-token prediction. A bucket is what travels at
// once; every rank has an equal slice of each. Where the ranks that hold the same experts are
// others than those that hold the same of the rest, the experts lie in a region of their own,
// behind the rest, and a unit has a piece in each region. What training leaves as it is lies behind
// all that it changes, in regions that gradients and states of optimizers do not have.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/nn/flat_ranges.h"
#include "qianli/plan/model_part.h"

namespace qianli::nn {

// Where a parameter lies in the flat buffers (values, gradients, optimizer states share the
// places).
struct FlatPlace {
  int64_t offset = 0;  // in elements, a multiple of kFlatAlignment
  int64_t count = 0;
};
inline constexpr int64_t kFlatAlignment = 64;  // elements; the gaps stay zero

// How a region is dealt out: which slice of each bucket is this rank's to update.
struct FlatOwner {
  int64_t ranks = 1;
  int64_t rank = 0;
  // The rank keeps its slices of the values only; a unit is whole while it is used (ZeRO-3).
  bool keeps_slices = false;
};
struct FlatOwners {
  FlatOwner dense;
  std::optional<FlatOwner> experts;  // absent: the experts are in the one region, too
  int64_t bucket_elements = 40'000'000;
  bool bucket_is_unit = false;  // else as many elements as that
};

class FlatLayout {
 public:
  FlatLayout(const std::vector<plan::ParameterPart>& parts, const FlatOwners& owners);

  // One, or that of the experts behind that of the rest; then, where there are such, the same of
  // what is frozen.
  struct Region {
    FlatRange range;
    FlatOwner owner;
    FlatRange own;  // in a compact tensor of all slices of what is frozen, or of what is not
    bool experts = false;
    bool frozen = false;
  };
  struct Unit {
    std::string name;
    size_t first = 0, last = 0;     // its parameters: [first, last)
    std::vector<FlatRange> pieces;  // by region; it may have none there
    bool embeds = false;
  };
  struct Bucket {
    FlatRange range;
    size_t region = 0;
    std::vector<size_t> units;  // that have a part of it
    FlatRanges::Part own;
  };

  int64_t size() const { return size_; }
  const FlatPlace& place(size_t parameter) const { return places_[parameter]; }
  const std::vector<Region>& regions() const { return regions_; }
  size_t region_of(size_t parameter) const { return region_of_[parameter]; }
  size_t region_at(int64_t offset) const;
  // The first so many regions are trained, and have so many elements.
  size_t trained_regions() const;
  int64_t trained_size() const;
  const std::vector<Unit>& units() const { return units_; }
  // In the order of the flat buffer.
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // What this rank updates: all that is trained, or its slices of that.
  const FlatRanges& owned() const { return owned_; }
  // The rank's slices of a region, or all of it, with what lies in regions alike.
  const FlatRanges& slices_with(size_t region) const {
    return regions_[region].frozen ? frozen_ : owned_;
  }

 private:
  void find_units(const std::vector<plan::ParameterPart>& parts);
  void place(const std::vector<plan::ParameterPart>& parts, const FlatOwners& owners);
  void lay_out(const std::vector<plan::ParameterPart>& parts, const FlatOwners& owners,
               Region region);
  void cut(const FlatRange& run, size_t region, int64_t step);
  FlatRanges deal_out(bool frozen);
  void find_buckets();

  int64_t size_ = 0;
  std::vector<FlatPlace> places_;
  std::vector<size_t> region_of_;
  std::vector<Region> regions_;
  std::vector<Unit> units_;
  std::vector<Bucket> buckets_;
  FlatRanges owned_, frozen_;
};

}  // namespace qianli::nn
