#include "qianli/model/parameter_table.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "qianli/base/error.h"
#include "qianli/base/random.h"
#include "qianli/model/table_writer.h"

namespace qianli::model {
namespace {

int64_t total_elements(const std::vector<ParameterEntry>& table) {
  int64_t total = 0;
  for (const ParameterEntry& entry : table) total += entry.elements();
  return total;
}

int64_t product(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

// Layers alike in these have the same parameters.
auto kind_of(const LayerSpec& layer) {
  return std::tuple(layer.mixer, layer.feed_forward, layer.shares_key_value, layer.owns_indexer,
                    layer.routes_by_token, layer.shortcut_moe, layer.num_heads, layer.num_groups);
}

// Buffers that older versions of transformers stored beside the weights; they follow from
// config.json.
const std::vector<std::string> kStoredBuffers{"rotary_emb.inv_freq", "rotary_pos_emb.inv_freq",
                                              ".attn.bias", ".attn.masked_bias",
                                              ".attention.rope.freqs"};

double time_step_bias(double u) {
  const double step = std::exp(std::log(0.001) + u * (std::log(0.1) - std::log(0.001)));
  return step + std::log(-std::expm1(-step));  // the inverse of softplus
}

double uniform_value(const ParameterEntry& entry, double u) {
  switch (entry.init) {
    case Init::kUniform:
      return entry.init_std * (2 * u - 1);
    case Init::kDecay:
      return std::log(1 + 15 * u);
    case Init::kTimeStepBias:
      return time_step_bias(u);
    default:
      throw std::logic_error("not a uniform initialiser");
  }
}

// Neighbours from one drawn for the row: different, and every expert in as many rows.
void fill_experts(const ParameterEntry& entry, uint64_t key, int64_t first, std::span<float> out) {
  const int64_t width = entry.shape.back();
  const auto experts = static_cast<int64_t>(entry.init_std);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t at = first + static_cast<int64_t>(i), row = at / width;
    const double u = uniform_at(key, static_cast<uint64_t>(row));
    const auto drawn = static_cast<int64_t>(u * static_cast<double>(experts));
    out[i] = static_cast<float>((drawn + at % width) % experts);
  }
}

}  // namespace

int64_t ParameterEntry::elements() const { return product(shape); }

int64_t ForeignPiece::elements() const { return product(shape); }

int64_t ForeignPiece::slice_rows() const {
  return transposed ? columns : elements() / slices / columns;
}

int64_t ForeignPiece::own_columns() const {
  return transposed ? elements() / slices / columns : columns;
}

int64_t ForeignPiece::foreign_row_of(int64_t r) const {
  return block == 0 ? foreign_row + r : foreign_row + r / block * stride + r % block;
}

std::vector<ParameterEntry> parameter_table(const ModelSpec& spec) {
  spec.validate();
  std::vector<ParameterEntry> table;
  TableWriter writer(spec, table);
  writer.embeddings();
  for (int64_t l = 0; l < spec.num_layers; ++l) writer.layer(l);
  writer.head();
  for (int64_t j = 0; j < spec.mtp.num_layers; ++j) writer.multi_token_prediction(j);
  return table;
}

int64_t parameter_count(const ModelSpec& spec) {
  spec.validate();
  std::map<decltype(kind_of(LayerSpec())), int64_t> counts;
  int64_t total = 0;
  for (int64_t l = 0; l < spec.num_layers; ++l) {
    const auto [place, fresh] = counts.emplace(kind_of(spec.layer(l)), 0);
    if (fresh) {
      std::vector<ParameterEntry> layer;
      TableWriter(spec, layer, /*foreign=*/false).layer(l);
      place->second = total_elements(layer);
    }
    total += place->second;
  }
  std::vector<ParameterEntry> outside;
  TableWriter writer(spec, outside, /*foreign=*/false);
  writer.embeddings();
  writer.head();
  for (int64_t j = 0; j < spec.mtp.num_layers; ++j) writer.multi_token_prediction(j);
  return total + total_elements(outside);
}

ForeignHabits foreign_habits(const ModelSpec& spec) {
  const ForeignNames names = names_of(spec);
  ForeignHabits habits{.prefixes = {names.optional_prefix},
                       .ignored_prefixes = names.ignored_prefixes,
                       .ignored_suffixes = kStoredBuffers,
                       .aliases = names.aliases,
                       .tied_output = {}};
  if (!names.optional_prefix.empty()) habits.prefixes.emplace_back();
  for (const auto& prefix : names.other_prefixes) habits.prefixes.push_back(prefix);
  // transformers keeps room for projections of zero experts, which nothing reads.
  const int64_t zeros = spec.moe ? spec.moe->num_zero_experts : 0;
  for (int64_t l = 0; zeros > 0 && l < spec.num_layers / names.own_layers; ++l) {
    for (int64_t e = 0; e < zeros; ++e) {
      habits.ignored_prefixes.push_back(
          fmt::format("model.layers.{}.mlp.experts.{}.", l, spec.moe->num_experts + e));
    }
  }
  if (!names.output.empty()) habits.tied_output = with_suffix(names.output, "weight");
  return habits;
}

void initial_values(const ParameterEntry& entry, uint64_t seed, int64_t first,
                    std::span<float> out) {
  const auto count = static_cast<int64_t>(out.size());
  if (first < 0 || first > entry.elements() || count > entry.elements() - first) {
    throw std::out_of_range(fmt::format("initial_values: [{}, {}) of {} elements of {}", first,
                                        first + count, entry.elements(), entry.name));
  }
  switch (entry.init) {
    case Init::kZeros:
      std::ranges::fill(out, 0.0f);
      return;
    case Init::kOnes:
      std::ranges::fill(out, 1.0f);
      return;
    case Init::kNormal:
    case Init::kNormalScaledByDepth:
      fill_normal(random_key(seed, entry.name), static_cast<uint64_t>(first), out.size(), 0.0,
                  entry.init_std, out.data());
      return;
    case Init::kExperts:
      return fill_experts(entry, random_key(seed, entry.name), first, out);
    case Init::kUniform:
    case Init::kDecay:
    case Init::kTimeStepBias: {
      const uint64_t key = random_key(seed, entry.name);
      for (size_t i = 0; i < out.size(); ++i) {
        const double u = uniform_at(key, static_cast<uint64_t>(first) + i);
        out[i] = static_cast<float>(uniform_value(entry, u));
      }
      return;
    }
  }
}

}  // namespace qianli::model
