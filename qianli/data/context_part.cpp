#include "qianli/data/context_part.h"

#include <algorithm>

namespace qianli::data {

std::vector<int64_t> even_starts(int64_t count, int64_t ranks) {
  std::vector<int64_t> starts = {0};
  for (int64_t i = 0; i < ranks; ++i)
    starts.push_back(starts.back() + count / ranks + (i < count % ranks ? 1 : 0));
  return starts;
}

// Distances between a query and a key are all numbers between the least and the greatest.
bool sees(const TokenRun& queries, const TokenRun& keys, bool causal, int64_t window) {
  if (queries.begin == queries.end || keys.begin == keys.end) return false;
  const bool reached = !causal || queries.end > keys.begin;
  const bool within = window == 0 || queries.begin - (keys.end - 1) < window;
  return reached && within;
}

namespace {

TokenRun run_of(const ContextPart& part, size_t segment) {
  const int64_t begin = part.positions[segment];
  return {begin, begin + part.starts[segment + 1] - part.starts[segment]};
}

struct PlaceRun {
  int64_t place;
  TokenRun positions;
};

// The runs of each segment.
std::vector<std::vector<PlaceRun>> runs_of_segments(const std::vector<PlaceParts>& places) {
  std::vector<std::vector<PlaceRun>> runs(places.front().front().positions.size());
  for (size_t place = 0; place < places.size(); ++place) {
    for (const ContextPart& part : places[place]) {
      for (size_t s = 0; s < runs.size(); ++s) {
        if (part.starts[s] < part.starts[s + 1])
          runs[s].push_back({static_cast<int64_t>(place), run_of(part, s)});
      }
    }
  }
  return runs;
}

}  // namespace

bool meet(const ContextPart& queries, const ContextPart& keys, bool causal, int64_t window) {
  for (size_t s = 0; s < queries.positions.size(); ++s) {
    if (sees(run_of(queries, s), run_of(keys, s), causal, window)) return true;
  }
  return false;
}

BitGrid open_cells(const std::vector<PlaceParts>& places, bool causal, int64_t window) {
  BitGrid cells(static_cast<int64_t>(places.size()));
  for (const auto& runs : runs_of_segments(places)) {
    for (const PlaceRun& queries : runs) {
      for (const PlaceRun& keys : runs) {
        if (sees(queries.positions, keys.positions, causal, window))
          cells.set(queries.place, keys.place);
      }
    }
  }
  return cells;
}

namespace {

// Tokens of one segment.
struct SegmentRun {
  size_t segment;
  TokenRun positions;
};

// The order cut where segments end and where a place has its share, runs that go on where the one
// before ends put together.
std::vector<std::vector<SegmentRun>> runs_of_places(const std::vector<TokenRun>& order,
                                                    const std::vector<int64_t>& starts,
                                                    int64_t places) {
  const auto shares = even_starts(starts.back(), places);
  std::vector<std::vector<SegmentRun>> runs(static_cast<size_t>(places));
  int64_t done = 0;
  size_t place = 0;
  for (const TokenRun& run : order) {
    for (int64_t token = run.begin; token < run.end;) {
      while (shares[place + 1] == done) ++place;
      const auto segment =
          static_cast<size_t>(std::ranges::upper_bound(starts, token) - starts.begin() - 1);
      const int64_t end =
          std::min({run.end, starts[segment + 1], token + shares[place + 1] - done});
      const TokenRun positions{token - starts[segment], end - starts[segment]};
      auto& own = runs[place];
      if (!own.empty() && own.back().segment == segment &&
          own.back().positions.end == positions.begin) {
        own.back().positions.end = positions.end;
      } else {
        own.push_back({segment, positions});
      }
      done += end - token;
      token = end;
    }
  }
  return runs;
}

// The n-th run of every segment is in the n-th part.
PlaceParts parts_of(const std::vector<SegmentRun>& runs, size_t segments) {
  std::vector<std::vector<TokenRun>> by_segment(segments);
  size_t most = 1;
  for (const SegmentRun& run : runs) {
    by_segment[run.segment].push_back(run.positions);
    most = std::max(most, by_segment[run.segment].size());
  }
  PlaceParts parts(most, {{0}, {}});
  for (size_t n = 0; n < most; ++n) {
    for (const auto& own : by_segment) {
      const TokenRun run = n < own.size() ? own[n] : TokenRun{0, 0};
      parts[n].positions.push_back(run.begin);
      parts[n].starts.push_back(parts[n].starts.back() + run.end - run.begin);
    }
  }
  return parts;
}

}  // namespace

std::vector<PlaceParts> parts_in_order(const std::vector<TokenRun>& order,
                                       const std::vector<int64_t>& segment_starts, int64_t places) {
  std::vector<PlaceParts> parts;
  for (const auto& runs : runs_of_places(order, segment_starts, places))
    parts.push_back(parts_of(runs, segment_starts.size() - 1));
  return parts;
}

}  // namespace qianli::data
