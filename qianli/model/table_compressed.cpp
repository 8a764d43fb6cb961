// The entries of attention to compressed keys, and of residual streams of several rows.
#include "qianli/model/table_writer.h"

namespace qianli::model {

// Ranks share the groups of outputs, each with the heads that it takes. What makes the keys is held
// by all.
void TableWriter::compressed_attention(const LayerSpec& layer) {
  const CompressedAttention& sizes = *spec_.compressed_attention;
  const ForeignNames::Compressed& names = names_.compressed;
  const int64_t h = spec_.hidden_size, d = layer.head_dim, rank = sizes.q_lora_rank;
  const int64_t groups = sizes.output_groups, together = layer.num_heads / groups;
  const auto per_group = [&](int64_t width) { return Cut{{.pieces = groups, .width = width}}; };
  const auto matrix = [&](const std::string& name, const std::string& foreign_name, int64_t rows,
                          int64_t columns, const Cut& cut = {}) {
    linear("self_attention." + name, {{.foreign = foreign_name, .rows = rows}}, columns, false,
           Init::kNormal, cut.empty() ? Shared::kNot : Shared::kRows, cut);
  };
  matrix("linear_q_down_proj", names_.latent.query_down, rank, h);
  norm_of("self_attention.q_layernorm.weight", names_.latent.query_norm, {rank}, Init::kOnes);
  matrix("linear_q_up_proj", names_.latent.query_up, layer.query_size(), rank,
         per_group(together * d));
  matrix("linear_kv_proj", names.key_value, d, h);
  norm_of("self_attention.kv_layernorm.weight", names.key_value_norm, {d}, Init::kOnes);
  whole(add("self_attention.core_attention.softmax_offset", {layer.num_heads},
            {.init = Init::kZeros, .cut = per_group(together)}),
        names_.sinks.empty() ? "" : foreign(names_.sinks));
  if (layer.is_compressed()) compressor("self_attention.compressor.", names.compressor, layer, d);
  if (layer.owns_indexer) {
    const Indexer& indexer = *spec_.indexer;
    matrix("indexer.linear_wq_b", names_.indexer.query, indexer.num_heads * indexer.head_dim, rank);
    matrix("indexer.linear_weights_proj", names_.indexer.weights, indexer.num_heads, h);
    compressor("self_attention.indexer.compressor.", names.of_indexer, layer, indexer.head_dim);
  }
  const int64_t low = sizes.output_lora_rank, wide = together * d;
  ParameterEntry& down = add("self_attention.linear_o_down_proj.weight", {groups, low, wide},
                             {.init = Init::kNormal, .cut = per_group(1), .weight_decay = true});
  if (foreign_ && !names.out_down.empty()) {
    down.hugging_face = {{.name = with_suffix(foreign(names.out_down), "weight"),
                          .shape = {groups * low, wide},
                          .columns = wide,
                          .rows = groups * low}};
  }
  linear("self_attention.linear_proj", {{.foreign = names_.attention_out, .rows = h}}, groups * low,
         false, Init::kNormalScaledByDepth, Shared::kColumns, per_group(low));
}

void TableWriter::compressor(const std::string& name, const ForeignNames::Compressor& names,
                             const LayerSpec& layer, int64_t size) {
  const int64_t h = spec_.hidden_size;
  const int64_t width = layer.mixer == MixerKind::kSparseCompressed ? 2 * size : size;
  linear(name + "linear_kv", {{.foreign = names.key_value, .rows = width}}, h, false,
         Init::kNormal);
  linear(name + "linear_gate", {{.foreign = names.gate, .rows = width}}, h, false, Init::kNormal);
  whole(add(name + "position_bias", {layer.compression, width}, {.init = Init::kZeros}),
        names.position_bias.empty() ? "" : foreign(names.position_bias));
  norm_of(name + "norm.weight", names.norm, {size}, Init::kOnes);
}

void TableWriter::hyper_connection(const std::string& name,
                                   const ForeignNames::HyperConnection& names, bool mixes) {
  if (!spec_.hyper_connections) return;
  const int64_t n = spec_.hyper_connections->streams, rows = mixes ? (2 + n) * n : n;
  const auto entry = [&](const char* part, const std::string& foreign_name,
                         std::vector<int64_t> shape, Init init) {
    whole(add(name + part, std::move(shape), {.init = init, .weight_decay = init == Init::kNormal}),
          foreign_name.empty() ? "" : foreign(foreign_name));
  };
  entry(".weight", names.weight, {rows, n * spec_.hidden_size}, Init::kNormal);
  entry(".bias", names.bias, {rows}, Init::kZeros);
  entry(".scale", names.scale, {mixes ? 3 : 1}, Init::kOnes);
}

}  // namespace qianli::model
