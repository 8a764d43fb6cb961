// The multipliers of MiniCPM (arXiv:2404.06395): of the embedding (scale_emb), of both branches
// (scale_depth / sqrt(layers)), and the divisor of the last hidden states (hidden_size /
// dim_model_base).
#pragma once

#include "qianli/model/config_reader.h"
#include "qianli/model/spec.h"

namespace qianli::model {

struct MuScalingDefaults {
  double embedding = 1.0;
  double depth = 1.0;
  int64_t base_size = 1;
};

void read_mu_scaling(const ConfigReader& config, const MuScalingDefaults& defaults,
                     ModelSpec& spec);
void write_mu_scaling(const ModelSpec& spec, OrderedJson& config);

}  // namespace qianli::model
