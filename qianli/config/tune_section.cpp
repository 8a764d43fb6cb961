#include "qianli/config/tune_section.h"

#include <cmath>

namespace qianli::config {

double TuneConfig::scale() const {
  const auto rank = static_cast<double>(r);
  return alpha / (use_rslora ? std::sqrt(rank) : rank);
}

}  // namespace qianli::config
