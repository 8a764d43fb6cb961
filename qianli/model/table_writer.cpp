#include "qianli/model/table_writer.h"

#include <fmt/core.h>

#include <cmath>

#include "qianli/base/strings.h"

namespace qianli::model {
namespace {

// Replaces "{place}" in `text` by a number, wherever it stands.
std::string filled(std::string text, std::string_view place, int64_t number) {
  const std::string value = std::to_string(number);
  for (size_t at = text.find(place); at != text.npos; at = text.find(place, at + value.size())) {
    text.replace(at, place.size(), value);
  }
  return text;
}

}  // namespace

std::string with_suffix(const std::string& name, const std::string& suffix) {
  const size_t star = name.find('*');
  if (star == name.npos) return name + "." + suffix;
  return name.substr(0, star) + suffix + name.substr(star + 1);
}

TableWriter::TableWriter(const ModelSpec& spec, std::vector<ParameterEntry>& table, bool foreign)
    : spec_(spec), names_(names_of(spec)), table_(table), foreign_(foreign) {}

std::string TableWriter::foreign(const std::string& name, int64_t expert) const {
  std::string full = filled(foreign_prefix_ + name, "{e}", expert);
  if (layer_ < 0) return full;
  full = filled(std::move(full), "{half}", half_);
  return filled(std::move(full), "{l}", layer_ / names_.own_layers);
}

// Outputs of residual branches start smaller, so that their sum over 2 L branches keeps its
// variance (GPT-2; Megatron-LM scaled_init_method_normal).
double TableWriter::std_of(Init init) const {
  if (init == Init::kNormal) return spec_.init_std;
  if (init == Init::kNormalScaledByDepth) {
    return spec_.init_std / std::sqrt(2.0 * static_cast<double>(spec_.num_layers));
  }
  return 0.0;
}

ParameterEntry& TableWriter::add(const std::string& name, std::vector<int64_t> shape, Style style) {
  ParameterEntry entry;
  entry.name = own(name);
  entry.shape = std::move(shape);
  entry.init = style.init;
  entry.init_std = std_of(style.init);
  entry.cut = std::move(style.cut);
  entry.cut_axis = style.cut_axis;
  entry.stream_axis = style.stream_axis;
  entry.within_block = within_block_;
  entry.layer = layer_;
  entry.weight_decay = style.weight_decay;
  return table_.emplace_back(std::move(entry));
}

void TableWriter::append(std::vector<ForeignPiece>& pieces, ForeignPiece piece) const {
  if (!pieces.empty()) piece.first_row = pieces.back().first_row + pieces.back().rows;
  pieces.push_back(std::move(piece));
}

void TableWriter::whole(ParameterEntry& entry, const std::string& foreign_name) const {
  if (!foreign_ || foreign_name.empty()) return;
  const int64_t columns = entry.shape.size() > 1 ? entry.shape.back() : 1;
  entry.hugging_face = {{.name = foreign_name,
                         .shape = entry.shape,
                         .columns = columns,
                         .rows = entry.elements() / columns}};
}

void TableWriter::norm_of(const std::string& name, const std::string& foreign_name,
                          std::vector<int64_t> shape, Init init, const Cut& cut, int stream_axis) {
  ParameterEntry& entry =
      add(name, std::move(shape), {.init = init, .cut = cut, .stream_axis = stream_axis});
  if (!foreign_name.empty()) {
    const std::string suffix = name.substr(name.rfind('.') + 1);
    whole(entry, with_suffix(foreign(foreign_name), suffix));
  }
}

void TableWriter::norm(const std::string& name, const std::string& foreign_name) {
  const int64_t h = spec_.hidden_size;
  const Init weight = spec_.norm_zero_centered ? Init::kZeros : Init::kOnes;
  norm_of(name + ".weight", foreign_name, {h}, weight, {}, /*stream_axis=*/0);
  if (spec_.norm_bias) norm_of(name + ".bias", foreign_name, {h}, Init::kZeros, {}, 0);
}

void TableWriter::linear(const std::string& name, const std::vector<Part>& parts, int64_t columns,
                         bool bias, Init init, Shared shared, const Cut& cut) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  const bool transposed = names_.input_major && layer_ >= 0;
  // The last linear of a block gives the stream's columns, the first ones take them.
  const bool last = shared == Shared::kColumns;
  const int stream_axis = !within_block_ ? -1 : last ? 0 : 1;
  const auto fill = [&](ParameterEntry& entry, const std::string& suffix, bool matrix) {
    for (const Part& part : parts) {
      if (!foreign_ || part.foreign.empty()) continue;
      const int64_t total = part.foreign_rows > 0 ? part.foreign_rows : part.rows;
      ForeignPiece piece{.name = with_suffix(foreign(part.foreign), suffix),
                         .shape = {total},
                         .rows = part.rows,
                         .foreign_row = part.foreign_row,
                         .block = part.block,
                         .stride = part.stride};
      if (matrix) {
        piece.shape = transposed ? std::vector{columns, total} : std::vector{total, columns};
        piece.columns = piece.shape[1];
        piece.transposed = transposed;
      }
      append(entry.hugging_face, std::move(piece));
    }
  };
  fill(add(name + ".weight", {rows, columns},
           {.init = init,
            .cut = cut,
            .cut_axis = last ? 1 : 0,
            .weight_decay = true,
            .stream_axis = stream_axis}),
       "weight", true);
  if (!bias) return;
  // Cut by columns, every rank holds a partial sum of all rows: the bias is added once, after.
  const Cut bias_cut = shared == Shared::kRows ? cut : Cut();
  fill(add(name + ".bias", {rows},
           {.init = Init::kZeros, .cut = bias_cut, .stream_axis = last ? 0 : -1}),
       "bias", false);
}

void TableWriter::vocabulary(const std::string& name, const std::string& foreign_name, int64_t rows,
                             const Cut& cut) {
  ParameterEntry& entry =
      add(name + ".weight", {rows, spec_.hidden_size},
          {.cut = cut, .weight_decay = true, .stream_axis = cut.empty() ? 1 : -1});
  if (!foreign_name.empty()) whole(entry, with_suffix(foreign_name, "weight"));
}

void TableWriter::copies(const std::string& foreign_name) {
  if (!foreign_ || foreign_name.empty()) return;
  for (int64_t j = 0; j < spec_.mtp.num_layers; ++j) {
    const auto copy = filled(foreign_name, "{l}", spec_.num_layers + j);
    table_.back().hugging_face_copies.push_back(copy);
  }
}

void TableWriter::embeddings() {
  vocabulary("embedding.word_embeddings", names_.embedding, spec_.vocab_size,
             {{.pieces = spec_.vocab_size}});
  copies(names_.mtp.embedding_copy);
  if (spec_.tie_word_embeddings) copies(names_.mtp.output_copy);
  if (spec_.embedding_norm) norm("embedding.word_embeddings.norm", names_.embedding_norm);
  if (spec_.position == PositionKind::kLearned) {
    vocabulary("embedding.position_embeddings", names_.position_embedding,
               spec_.max_position_embeddings, {});
  }
}

void TableWriter::layer(int64_t index) {
  layer_ = index;
  half_ = index % names_.own_layers;
  own_prefix_ = fmt::format("decoder.layers.{}.", index);
  foreign_prefix_ = names_.layer;
  decoder_layer(spec_.layer(index));
  own_prefix_ = foreign_prefix_ = "";
  layer_ = -1;
}

void TableWriter::head() {
  hyper_connection("decoder.hyper_connection", names_.final_streams, false);
  norm("decoder.final_layernorm", names_.final_norm);
  if (spec_.tie_word_embeddings) return output_bias();
  linear("output_layer", {{.foreign = names_.output, .rows = spec_.vocab_size}}, spec_.hidden_size,
         false, Init::kNormal, Shared::kRows, {{.pieces = spec_.vocab_size}});
  copies(names_.mtp.output_copy);
  output_bias();
}

void TableWriter::output_bias() {
  if (!spec_.output_bias) return;
  ParameterEntry& entry = add("output_layer.bias", {spec_.vocab_size},
                              {.init = Init::kZeros, .cut = {{.pieces = spec_.vocab_size}}});
  whole(entry, names_.output.empty() ? "" : with_suffix(names_.output, "bias"));
}

void TableWriter::multi_token_prediction(int64_t index) {
  const int64_t h = spec_.hidden_size;
  layer_ = spec_.num_layers + index;
  own_prefix_ = fmt::format("mtp.layers.{}.", index);
  const auto named = [&](const std::string& name) { return filled(name, "{j}", index); };
  norm("enorm", named(names_.mtp.embedding_norm));
  norm("hnorm", named(names_.mtp.hidden_norm));
  // Held whole by every rank: Megatron-core cuts it and gathers its output at once.
  linear("eh_proj", {{.foreign = named(names_.mtp.projection), .rows = h}}, 2 * h, false,
         Init::kNormal);
  own_prefix_ += "transformer_layer.";
  foreign_prefix_ = named(names_.mtp.layer);
  decoder_layer(spec_.layer(layer_));
  own_prefix_ = fmt::format("mtp.layers.{}.", index);
  foreign_prefix_ = "";
  norm("final_layernorm", named(names_.mtp.final_norm));
  own_prefix_ = "";
  layer_ = -1;
}

}  // namespace qianli::model
