// The entries of dense MLPs and mixtures of experts.
#include "qianli/model/table_writer.h"

namespace qianli::model {

std::vector<TableWriter::Part> TableWriter::gated_parts(const std::vector<std::string>& names,
                                                        int64_t width) const {
  const auto name = [&](size_t i) { return i < names.size() ? names[i] : std::string(); };
  if (!spec_.gated_mlp) {
    return {{.foreign = names.empty() ? "" : names.back(), .rows = width}};
  }
  if (names.size() == 1) return {{.foreign = names[0], .rows = 2 * width}};
  return {{.foreign = name(0), .rows = width}, {.foreign = name(1), .rows = width}};
}

TableWriter::Cut TableWriter::branches(int64_t width) const {
  return Cut(spec_.gated_mlp ? 2 : 1, {.pieces = width});
}

void TableWriter::mlp() {
  const int64_t h = spec_.hidden_size, f = spec_.ffn_hidden_size;
  linear("mlp.linear_fc1", gated_parts(names_.mlp_in, f), h, spec_.mlp_bias, Init::kNormal,
         Shared::kRows, branches(f));
  linear("mlp.linear_fc2", {{.foreign = names_.mlp_out, .rows = h}}, f, spec_.mlp_bias,
         Init::kNormalScaledByDepth, Shared::kColumns, {{.pieces = f}});
}

void TableWriter::mixture(const std::string& name, bool routes_by_token) {
  const MixtureOfExperts& moe = *spec_.moe;
  const ForeignNames::Experts& names = names_.experts;
  const int64_t h = spec_.hidden_size, all = moe.num_experts + moe.num_zero_experts;
  linear(name + ".router", {{.foreign = names.router, .rows = all}}, h, moe.router_bias,
         Init::kNormal);
  if (routes_by_token) {
    ParameterEntry& chosen = add(name + ".router.token_experts", {spec_.vocab_size, moe.top_k},
                                 {.init = Init::kExperts});
    chosen.init_std = static_cast<double>(moe.num_experts);
    chosen.buffer = chosen.integral = true;
    whole(chosen, names.token_experts.empty() ? "" : foreign(names.token_experts));
  } else if (moe.selection_bias) {
    ParameterEntry& bias = add(name + ".router.expert_bias", {all}, {.init = Init::kZeros});
    bias.buffer = true;
    whole(bias, names.selection_bias.empty() ? "" : foreign(names.selection_bias));
  }
  experts(name + ".experts");
  if (moe.shared_ffn_hidden_size == 0) return;
  const int64_t width = moe.shared_ffn_hidden_size;
  linear(name + ".shared_experts.linear_fc1", gated_parts(names.shared_in, width), h, false,
         Init::kNormal, Shared::kRows, branches(width));
  linear(name + ".shared_experts.linear_fc2", {{.foreign = names.shared_out, .rows = h}}, width,
         false, Init::kNormalScaledByDepth, Shared::kColumns, {{.pieces = width}});
  if (!moe.shared_gate) return;
  whole(add(name + ".shared_experts.gate_weight", {1, h}, {.weight_decay = true}),
        names.shared_gate.empty() ? "" : with_suffix(foreign(names.shared_gate), "weight"));
}

void TableWriter::experts(const std::string& name) {
  const MixtureOfExperts& moe = *spec_.moe;
  const ForeignNames::Experts& names = names_.experts;
  const int64_t h = spec_.hidden_size, m = moe.ffn_hidden_size;
  const int64_t wide = spec_.gated_mlp ? 2 * m : m;
  const auto entry = [&](bool in, bool bias) {
    const int64_t rows = in ? wide : h, columns = in ? h : m;
    std::vector<int64_t> shape{moe.num_experts, rows};
    if (!bias) shape.push_back(columns);
    const Init matrix = in ? Init::kNormal : Init::kNormalScaledByDepth;
    Cut cut;
    if (in) {
      cut = branches(m);
    } else if (!bias) {
      cut = {{.pieces = m}};
    }
    ParameterEntry& made =
        add(name + (in ? ".linear_fc1." : ".linear_fc2.") + (bias ? "bias" : "weight"), shape,
            {.init = bias ? Init::kZeros : matrix,
             .cut = cut,
             .cut_axis = in ? 1 : 2,
             .weight_decay = !bias});
    made.expert = true;
    if (!foreign_) return;
    const auto single = in ? names.in : std::vector{names.out};
    const bool one_by_one = !names.in.empty();
    if (one_by_one) {
      experts_one_by_one(made, single, bias ? 1 : columns, bias ? "bias" : "weight");
    }
    stacked_experts(made, one_by_one ? made.hugging_face_also : made.hugging_face, in, bias);
  };
  entry(true, false);
  if (moe.expert_bias) entry(true, true);
  entry(false, false);
  if (moe.expert_bias) entry(false, true);
}

void TableWriter::experts_one_by_one(ParameterEntry& entry, const std::vector<std::string>& names,
                                     int64_t columns, const std::string& suffix) const {
  const int64_t rows = entry.shape[1] / static_cast<int64_t>(names.size());
  const bool matrix = entry.shape.size() == 3;
  for (int64_t e = 0; e < entry.shape[0]; ++e) {
    for (const std::string& name : names) {
      append(entry.hugging_face, {.name = with_suffix(foreign(name, e), suffix),
                                  .shape = matrix ? std::vector{rows, columns} : std::vector{rows},
                                  .columns = columns,
                                  .rows = rows});
    }
  }
}

void TableWriter::stacked_experts(ParameterEntry& entry, std::vector<ForeignPiece>& pieces, bool in,
                                  bool bias) const {
  const ForeignNames::Experts& names = names_.experts;
  if (names.stacked_in.empty()) return;
  const int64_t count = entry.shape[0], rows = entry.shape[1];
  const int64_t columns = bias ? 1 : entry.shape[2];
  std::string name = in ? names.stacked_in[0] : names.stacked_out;
  if (bias) name = in ? names.stacked_in_bias : names.stacked_out_bias;
  if (name.empty()) return;
  const bool woven = names.stack == ExpertStack::kWovenInputs;
  const bool apart = names.stack == ExpertStack::kRows && in && names.stacked_in.size() > 1;
  if ((names.stack == ExpertStack::kRows && !apart) || (woven && bias && !in)) {
    const auto shape = bias ? std::vector{count, rows} : std::vector{count, rows, columns};
    append(pieces,
           {.name = foreign(name), .shape = shape, .columns = columns, .rows = count * rows});
    return;
  }
  const int64_t branches = in && spec_.gated_mlp ? 2 : 1, width = rows / branches;
  for (int64_t e = 0; e < count; ++e) {
    for (int64_t b = 0; b < branches; ++b) {
      if (woven) {
        append(pieces,
               {.name = foreign(name),
                .shape = bias ? std::vector{count, rows} : std::vector{count, columns, rows},
                .slices = count,
                .index = e,
                .columns = bias ? 1 : rows,
                .transposed = !bias,
                .rows = width,
                .foreign_row = branches > 1 ? b : 0,
                .block = branches > 1 ? 1 : 0,
                .stride = branches > 1 ? branches : 0});
      } else if (apart) {
        append(pieces, {.name = foreign(names.stacked_in[static_cast<size_t>(b)]),
                        .shape = {count, width, columns},
                        .columns = columns,
                        .rows = width,
                        .foreign_row = e * width});
      } else if (in) {
        append(pieces, {.name = foreign(names.stacked_in[static_cast<size_t>(b)]),
                        .shape = {count * width, columns},
                        .columns = columns,
                        .rows = width,
                        .foreign_row = e * width});
      } else {
        append(pieces, {.name = foreign(name),
                        .shape = {count * columns, rows},
                        .slices = count,
                        .index = e,
                        .columns = rows,
                        .transposed = true,
                        .rows = rows});
      }
    }
  }
}

}  // namespace qianli::model
