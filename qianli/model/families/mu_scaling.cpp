#include "qianli/model/families/mu_scaling.h"

#include <algorithm>
#include <cmath>

namespace qianli::model {
namespace {

double depth_root(const ModelSpec& spec) {
  return std::sqrt(static_cast<double>(std::max<int64_t>(spec.num_layers, 1)));
}

// The number near `guess` from which `made` comes back to the last place.
template <class Make>
double inverse(double guess, double made, const Make& make) {
  double below = guess, above = guess;
  for (int step = 0; step < 4; ++step) {
    if (make(below) == made) return below;
    if (make(above) == made) return above;
    below = std::nextafter(below, -1e300);
    above = std::nextafter(above, 1e300);
  }
  return guess;
}

}  // namespace

void read_mu_scaling(const ConfigReader& config, const MuScalingDefaults& defaults,
                     ModelSpec& spec) {
  const auto number = [&](const char* key, double absent, double null) {
    return config.contains(key) ? config.number(key, null) : absent;
  };
  const auto hidden = static_cast<double>(spec.hidden_size);
  spec.embedding_multiplier = number("scale_emb", defaults.embedding, 1.0);
  spec.residual_multiplier =
      number("scale_depth", defaults.depth, depth_root(spec)) / depth_root(spec);
  const double base = number("dim_model_base", static_cast<double>(defaults.base_size), hidden);
  if (!(base > 0)) config.fail("dim_model_base", "a positive number");
  spec.hidden_divisor = hidden / base;
}

void write_mu_scaling(const ModelSpec& spec, OrderedJson& config) {
  const double root = depth_root(spec), hidden = static_cast<double>(spec.hidden_size);
  const double base = inverse(hidden / spec.hidden_divisor, spec.hidden_divisor,
                              [&](double size) { return hidden / size; });
  config["scale_emb"] = spec.embedding_multiplier;
  config["scale_depth"] = inverse(spec.residual_multiplier * root, spec.residual_multiplier,
                                  [&](double depth) { return depth / root; });
  config["dim_model_base"] = base;
  if (base == std::floor(base) && base < 0x1p31) {
    config["dim_model_base"] = static_cast<int64_t>(base);
  }
}

}  // namespace qianli::model
