// Where the elements of a part lie in the whole parameter.
#include "qianli/plan/model_part.h"

#include <functional>

namespace qianli::plan {
namespace {

// A stretch of an axis that is one range in the part and in the whole.
struct Stretch {
  int64_t local = 0, whole = 0, count = 0;
};

std::vector<Stretch> stretches(const std::vector<IndexRange>& kept) {
  std::vector<Stretch> all;
  int64_t local = 0;
  for (const IndexRange& range : kept) {
    all.push_back({local, range.begin, range.count()});
    local += range.count();
  }
  return all;
}

// Every combination of one stretch of each axis.
std::vector<PlacedBox> combined(const std::vector<std::vector<Stretch>>& axes) {
  std::vector<PlacedBox> boxes(1);
  for (const auto& axis : axes) {
    std::vector<PlacedBox> longer;
    for (const PlacedBox& box : boxes) {
      for (const Stretch& stretch : axis) {
        PlacedBox next = box;
        next.local.offset.push_back(stretch.local);
        next.local.shape.push_back(stretch.count);
        next.whole.offset.push_back(stretch.whole);
        next.whole.shape.push_back(stretch.count);
        longer.push_back(std::move(next));
      }
    }
    boxes = std::move(longer);
  }
  return boxes;
}

// The stretches of each axis that lie within a box, which is given in the part or in the whole.
template <class Place>
std::vector<PlacedBox> within(const ParameterPart& part, const formats::Box& box,
                              const Place& place) {
  std::vector<std::vector<Stretch>> axes;
  for (size_t axis = 0; axis < part.kept.size(); ++axis) {
    auto& inside = axes.emplace_back();
    const int64_t begin = box.offset[axis], end = begin + box.shape[axis];
    for (const Stretch& stretch : stretches(part.kept[axis])) {
      const int64_t from = std::max(place(stretch), begin);
      const int64_t to = std::min(place(stretch) + stretch.count, end);
      if (from >= to) continue;
      const int64_t skipped = from - place(stretch);
      inside.push_back({stretch.local + skipped, stretch.whole + skipped, to - from});
    }
  }
  return combined(axes);
}

}  // namespace

std::vector<PlacedBox> placed(const ParameterPart& part, const formats::Box& local) {
  return within(part, local, [](const Stretch& stretch) { return stretch.local; });
}

std::vector<PlacedBox> common(const ParameterPart& part, const formats::Box& whole) {
  return within(part, whole, [](const Stretch& stretch) { return stretch.whole; });
}

std::vector<Run> runs(const ParameterPart& part) {
  const size_t axes = part.shape.size();
  if (axes == 0 || part.whole()) return {{0, 0, part.elements()}};
  size_t last_cut = axes - 1;  // behind it all axes are whole
  while (last_cut > 0 && part.shape[last_cut] == part.entry.shape[last_cut]) --last_cut;
  std::vector<int64_t> strides(axes, 1), whole_strides(axes, 1);
  for (size_t axis = axes - 1; axis > 0; --axis) {
    strides[axis - 1] = strides[axis] * part.shape[axis];
    whole_strides[axis - 1] = whole_strides[axis] * part.entry.shape[axis];
  }
  std::vector<Run> found;
  const std::function<void(size_t, int64_t, int64_t)> visit = [&](size_t axis, int64_t first,
                                                                  int64_t whole) {
    for (const Stretch& stretch : stretches(part.kept[axis])) {
      const int64_t from = first + stretch.local * strides[axis];
      const int64_t there = whole + stretch.whole * whole_strides[axis];
      if (axis == last_cut) {
        found.push_back({from, there, stretch.count * strides[axis]});
        continue;
      }
      for (int64_t i = 0; i < stretch.count; ++i) {
        visit(axis + 1, from + i * strides[axis], there + i * whole_strides[axis]);
      }
    }
  };
  visit(0, 0, 0);
  return found;
}

}  // namespace qianli::plan
