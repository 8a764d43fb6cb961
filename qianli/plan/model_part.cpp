#include "qianli/plan/model_part.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "qianli/model/tuned_table.h"

namespace qianli::plan {
namespace {

using model::CutSection;
using model::ModelSpec;
using model::ParameterEntry;

// What a rank has of a section, in elements from its start.
struct SectionPart {
  IndexRange elements;
  int64_t sharers = 1;  // neighbours that have the same
  int64_t sharer = 0;   // which of them it is
};

SectionPart part_of(const CutSection& section, const Share& share) {
  if (section.pieces >= share.count || share.count % std::max<int64_t>(section.pieces, 1) != 0) {
    const IndexRange pieces = share.of(section.pieces);
    return {.elements = {pieces.begin * section.width, pieces.end * section.width}};
  }
  const int64_t together = share.count / section.pieces;  // ranks of one piece
  const int64_t begin = share.index / together * section.width;
  const int64_t place = share.index % together;
  if (section.finer == 1) {
    return {.elements = {begin, begin + section.width}, .sharers = together, .sharer = place};
  }
  const IndexRange parts = Share{place, together}.of(section.finer);
  const int64_t width = section.width / section.finer;
  return {.elements = {begin + parts.begin * width, begin + parts.end * width}};
}

void append(std::vector<IndexRange>& ranges, IndexRange range) {
  if (range.count() == 0) return;
  if (!ranges.empty() && ranges.back().end == range.begin) {
    ranges.back().end = range.end;
  } else {
    ranges.push_back(range);
  }
}

int64_t total(const std::vector<IndexRange>& ranges) {
  int64_t count = 0;
  for (const IndexRange& range : ranges) count += range.count();
  return count;
}

// Cuts an axis of a part whose other axes are known.
void cut_axis(ParameterPart& part, const Share& share) {
  const auto axis = static_cast<size_t>(part.entry.cut_axis);
  std::vector<IndexRange>& kept = part.kept[axis];
  kept.clear();
  int64_t offset = 0, own_rows = 0;  // of what no other rank has
  bool first_sharer = true;
  for (const CutSection& section : part.entry.cut) {
    const SectionPart own = part_of(section, share);
    append(kept, {offset + own.elements.begin, offset + own.elements.end});
    offset += section.size();
    if (own.sharers == 1) {
      own_rows += own.elements.count();
    } else {
      part.sharers = own.sharers;
      first_sharer = own.sharer == 0;
    }
  }
  part.shape[axis] = total(kept);
  const int64_t row = part.shape[axis] > 0 ? part.elements() / part.shape[axis] : 0;
  part.shared_from = part.sharers == 1 ? part.elements() : own_rows * row;
  part.counted = first_sharer ? part.elements() : part.shared_from;
}

// Of a rank of x y, where the columns of the stream are shared, too.
void cut_twice(ParameterPart& cut, const ModelPart& part) {
  const ParameterEntry& entry = cut.entry;
  const Share inner = part.inner();
  if (entry.stream_axis >= 0) {
    const auto axis = static_cast<size_t>(entry.stream_axis);
    const IndexRange columns = part.columns.of(entry.shape[axis]);
    cut.kept[axis] = {columns};
    cut.shape[axis] = columns.count();
  }
  if (!entry.cut.empty()) {
    cut_axis(cut, entry.within_block ? inner : part.tensor);
    if (!entry.within_block || entry.stream_axis >= 0) return;
    cut.summed_over_columns = true;  // biases of first linears, sinks
    if (part.columns.index > 0) cut.counted = 0;
    return;
  }
  if (entry.stream_axis >= 0) {  // norms, positions, biases of last linears: of other tokens
    cut.sharers = inner.count;
    cut.shared_from = 0;
    cut.counted = inner.index == 0 ? cut.elements() : 0;
    return;
  }
  cut.summed = !entry.buffer;  // norms of queries and keys
  cut.shared_from = cut.elements();
  cut.counted = part.tensor.index == 0 ? cut.elements() : 0;
}

ParameterPart cut(ParameterEntry entry, const ModelPart& part) {
  ParameterPart cut{.entry = std::move(entry)};
  cut.shape = cut.entry.shape;
  for (const int64_t size : cut.shape) cut.kept.push_back({{0, size}});
  if (!part.columns.whole()) {
    cut_twice(cut, part);
    return cut;
  }
  if (cut.entry.expert && !part.experts.whole()) {
    const IndexRange experts = part.experts.of(cut.shape[0]);
    cut.kept[0] = {experts};
    cut.shape[0] = experts.count();
  }
  const Share& share = cut.entry.expert ? part.expert_tensor : part.tensor;
  if (!share.whole() && !cut.entry.cut.empty()) {
    cut_axis(cut, share);
    return cut;
  }
  cut.shared_from = cut.elements();
  cut.counted = share.index == 0 ? cut.elements() : 0;
  cut.summed = !share.whole() && !cut.entry.buffer && (cut.entry.within_block || part.sequence);
  return cut;
}

// Which parts of the model around the layers a stage has, and which layers.
struct Stage {
  explicit Stage(const ModelSpec& spec, const std::vector<ChunkLayers>& chunks)
      : tied(spec.tie_word_embeddings) {
    for (const ChunkLayers& chunk : chunks) {
      for (const auto& layer : chunk.layers) layers.insert(layer.global);
      for (int64_t j = 0; j < chunk.mtp_layers; ++j) layers.insert(spec.num_layers + j);
      embedding = embedding || chunk.embedding;
      loss = loss || chunk.loss;
      ahead = ahead || chunk.mtp_layers > 0;
    }
  }
  bool has(const ParameterEntry& entry) const {
    if (entry.layer >= 0) return layers.contains(entry.layer);
    if (!entry.name.starts_with("embedding.")) return loss;
    const bool output = tied && loss && entry.name == "embedding.word_embeddings.weight";
    return embedding || ahead || output;
  }

  std::set<int64_t> layers;
  bool embedding = false, loss = false, ahead = false, tied = false;
};

IndexRange groups_of(int64_t groups, const Share& tensor) {
  return part_of({.pieces = groups}, tensor).elements;
}

// Query heads of the rank, in the order of all.
IndexRange heads_of(int64_t heads, int64_t groups, const Share& tensor) {
  const int64_t together = groups > 0 ? heads / groups : 0;
  return part_of({.pieces = groups, .width = together, .finer = together}, tensor).elements;
}

}  // namespace

IndexRange Share::of(int64_t n) const {
  const auto border = [&](int64_t i) { return n / count * i + std::min(i, n % count); };
  return {border(index), border(index + 1)};
}

Share ModelPart::inner() const {
  const int64_t count = tensor.count / columns.count;
  return {tensor.index % count, count};
}

int64_t ParameterPart::elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

bool ParameterPart::whole() const { return shape == entry.shape; }

std::vector<ParameterPart> parameter_parts(const ModelSpec& spec, const ModelPart& part) {
  return parameter_parts(spec, part, {});
}

std::vector<ParameterPart> parameter_parts(const ModelSpec& spec, const ModelPart& part,
                                           const config::TuneConfig& tune) {
  std::vector<ParameterPart> parts;
  const Stage stage(spec, part.chunks);
  for (auto& [entry, frozen, quantized] : model::tuned_table(spec, tune)) {
    if (!part.chunks.empty() && !stage.has(entry)) continue;
    const bool copy = !part.chunks.empty() && !stage.embedding;
    ParameterPart own = cut(std::move(entry), part);
    if (own.elements() == 0) continue;
    own.frozen = frozen;
    own.quantized = quantized;
    if (copy && own.entry.name.starts_with("embedding.")) own.counted = 0;
    parts.push_back(std::move(own));
  }
  return parts;
}

ModelSpec spec_of_part(const ModelSpec& spec, const Share& tensor) {
  ModelSpec own = spec;
  if (tensor.whole()) return own;
  if (spec.compressed_attention) {
    auto& sizes = *own.compressed_attention;
    const int64_t heads = spec.num_attention_heads / sizes.output_groups;
    sizes.output_groups = tensor.of(sizes.output_groups).count();
    own.num_attention_heads = heads * sizes.output_groups;
  } else if (spec.latent_attention) {
    own.num_attention_heads = own.num_query_groups = tensor.of(spec.num_attention_heads).count();
  } else if (spec.num_attention_heads > 0) {
    own.num_attention_heads =
        heads_of(spec.num_attention_heads, spec.num_query_groups, tensor).count();
    own.num_query_groups = groups_of(spec.num_query_groups, tensor).count();
  }
  if (spec.sliding_num_attention_heads || spec.sliding_num_query_groups) {
    const int64_t heads = spec.sliding_num_attention_heads.value_or(spec.num_attention_heads);
    const int64_t groups = spec.sliding_num_query_groups.value_or(spec.num_query_groups);
    own.sliding_num_attention_heads = heads_of(heads, groups, tensor).count();
    own.sliding_num_query_groups = groups_of(groups, tensor).count();
  }
  if (own.gated_delta_net) {
    auto& net = *own.gated_delta_net;
    const int64_t values = net.num_value_heads / net.num_key_heads;
    net.num_key_heads = tensor.of(net.num_key_heads).count();
    net.num_value_heads = values * net.num_key_heads;
  }
  if (own.mamba2) {
    auto& mamba = *own.mamba2;
    const int64_t channels = mamba.inner_size / mamba.num_groups;
    mamba.num_groups = tensor.of(mamba.num_groups).count();
    mamba.inner_size = channels * mamba.num_groups;
  }
  return own;
}

int64_t first_head(const model::LayerSpec& layer, const Share& tensor) {
  return heads_of(layer.num_heads, layer.num_groups, tensor).begin;
}

}  // namespace qianli::plan
