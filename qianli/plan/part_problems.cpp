// Why ranks cannot share a model as they are asked to.
#include <fmt/core.h>

#include "qianli/plan/model_part.h"

namespace qianli::plan {
namespace {

using model::ModelSpec;

const char* tensor_key(const ModelPart& part) {
  return part.columns.whole() ? "parallel.tensor" : "parallel.tensor_x";
}

void share_groups(std::vector<std::string>& problems, const char* key, int64_t heads,
                  int64_t groups, int64_t ranks) {
  if (groups >= ranks) return;
  if (ranks % groups == 0 && heads / groups % (ranks / groups) == 0) return;
  problems.push_back(fmt::format(
      "{} query heads in {} groups cannot be shared by {} ranks: choose {} of at most {}, or a "
      "multiple of it that divides {}",
      heads, groups, ranks, key, groups, heads));
}

// What stands in the way of sharing the columns of the stream.
std::vector<std::string> column_problems(const ModelSpec& spec, const ModelPart& part) {
  std::vector<std::string> problems;
  if (part.columns.whole()) return problems;
  const auto refuse = [&](bool there, const std::string& what) {
    if (!there) return;
    problems.push_back(
        fmt::format("{} cannot be shared by two-dimensional tensor parallelism: choose "
                    "parallel.tensor_x=1 and parallel.tensor_y=1 with parallel.tensor={}",
                    what, part.tensor.count));
  };
  refuse(spec.moe.has_value(), "a mixture of experts");
  refuse(spec.latent_attention.has_value(), "latent attention");
  refuse(spec.compressed_attention.has_value(), "compressed attention");
  refuse(spec.hyper_connections.has_value(), "a residual stream of several rows");
  refuse(spec.gated_delta_net.has_value(), "gated delta net");
  refuse(spec.mamba2.has_value(), "Mamba-2");
  refuse(spec.mtp.num_layers > 0, "multi-token prediction");
  refuse(spec.norm_placement == model::NormPlacement::kParallel ||
             spec.norm_placement == model::NormPlacement::kParallelTwo,
         "attention and MLP side by side");
  if (spec.hidden_size < part.columns.count) {
    problems.push_back(fmt::format(
        "{} columns of the residual stream cannot be shared by {} ranks: choose parallel.tensor_y "
        "of at most {}",
        spec.hidden_size, part.columns.count, spec.hidden_size));
  }
  return problems;
}

}  // namespace

std::vector<std::string> part_problems(const ModelSpec& spec, const ModelPart& part) {
  std::vector<std::string> problems = column_problems(spec, part);
  // Of the vocabulary, and of all else.
  const int64_t all_ranks = part.tensor.count, ranks = part.inner().count;
  const auto expect = [&](int64_t things, int64_t sharers, const char* what, const char* key) {
    if (things >= sharers) return;
    problems.push_back(fmt::format("{} {} cannot be shared by {} ranks: choose {} of at most {}",
                                   things, what, sharers, key, things));
  };
  if (ranks > 1) {
    const char* key = tensor_key(part);
    if (spec.compressed_attention) {
      expect(spec.compressed_attention->output_groups, ranks, "groups of compressed attention",
             key);
    } else if (spec.latent_attention) {
      expect(spec.num_attention_heads, ranks, "heads of latent attention", key);
    } else if (spec.num_attention_heads > 0) {
      share_groups(problems, key, spec.num_attention_heads, spec.num_query_groups, ranks);
      if (spec.sliding_num_attention_heads || spec.sliding_num_query_groups) {
        share_groups(problems, key,
                     spec.sliding_num_attention_heads.value_or(spec.num_attention_heads),
                     spec.sliding_num_query_groups.value_or(spec.num_query_groups), ranks);
      }
    }
    if (spec.position == model::PositionKind::kAlibi && spec.num_attention_heads % ranks != 0) {
      problems.push_back(fmt::format(
          "{} heads with ALiBi cannot be shared evenly by {} ranks: choose {} that divides {}",
          spec.num_attention_heads, ranks, key, spec.num_attention_heads));
    }
    if (spec.qk_norm == model::QkNorm::kProjection) {
      problems.push_back(
          "queries and keys are normed over all heads together, which no rank has: choose "
          "parallel.tensor=1");
    }
    if (spec.indexer && spec.indexer->loss_coeff > 0) {
      problems.push_back(
          "the indexer's loss compares with the attention of all heads, which no rank has: choose "
          "parallel.tensor=1 or model.indexer.loss_coeff=0");
    }
    if (spec.gated_delta_net) {
      expect(spec.gated_delta_net->num_key_heads, ranks, "key heads of linear attention", key);
    }
    if (spec.mamba2) expect(spec.mamba2->num_groups, ranks, "groups of Mamba-2", key);
    if (spec.ffn_hidden_size > 0) expect(spec.ffn_hidden_size, ranks, "columns of the MLP", key);
    expect(spec.vocab_size, all_ranks, "rows of the vocabulary", "parallel.tensor");
  }
  if (all_ranks % part.expert_tensor.count != 0) {
    problems.push_back(
        fmt::format("parallel.expert_tensor must divide parallel.tensor={}, got {}: choose 1 or {}",
                    all_ranks, part.expert_tensor.count, all_ranks));
  }
  if (spec.moe) {
    expect(spec.moe->num_experts, part.experts.count, "experts", "parallel.expert");
    expect(spec.moe->ffn_hidden_size, part.expert_tensor.count, "columns of an expert",
           "parallel.expert_tensor");
  } else if (part.experts.count > 1) {
    problems.push_back("the model has no experts to share: choose parallel.expert=1");
  }
  return problems;
}

}  // namespace qianli::plan
