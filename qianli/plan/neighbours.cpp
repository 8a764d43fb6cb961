#include "qianli/plan/neighbours.h"

namespace qianli::plan {

std::set<std::pair<int32_t, int32_t>> neighbours(const Flow& flow) {
  std::set<std::pair<int32_t, int32_t>> pairs;
  for (size_t i = 0; i + 1 < flow.size(); ++i) {
    if (flow[i].stage != flow[i + 1].stage) pairs.emplace(flow[i].stage, flow[i + 1].stage);
  }
  return pairs;
}

}  // namespace qianli::plan
