// LoRA of every family in Megatron's rank files: merged, it is what each rank computes with.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/convert/adapter/low_rank.h"
#include "qianli/convert/adapter/tensors.h"
#include "qianli/convert/megatron/rank_files.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_lora.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

using testing::kRank;
using testing::Matrix;
using testing::random;
using testing::RankTensors;

// Adapters on all linear layers, whatever the family calls them: B by the rows that a tensor holds,
// A by its columns, so that ranks that hold the same have the same.
RankTensors adapters_of(const std::vector<ForeignTensor>& tensors, size_t file, bool experts) {
  RankTensors lora;
  for (const ForeignTensor& tensor : tensors) {
    if (tensor.file != file || tensor.name.find(".linear_") == tensor.name.npos ||
        !tensor.name.ends_with(".weight") || tensor.shape.size() != 2 ||
        (!experts && tensor.name.find(".local_experts.") != tensor.name.npos)) {
      continue;
    }
    const Part& part = tensor.parts.front();
    const std::string key = tensor.name.substr(tensor.name.find('.') + 1);
    const std::string module = key.substr(0, key.rfind('.'));
    const int64_t end = part.first_column + part.columns;
    lora[module + ".lora_A.default.weight"] = testing::columns(
        random({kRank, end}, fmt::format("{} a {}", module, end)), part.first_column, part.columns);
    lora[module + ".lora_B.default.weight"] =
        random({tensor.shape[0], kRank}, fmt::format("{} b {}", module, part.first_row));
  }
  return lora;
}

std::vector<float> floats(const formats::TensorSource& source, const std::string& name) {
  return float_values(source, source.at(name));
}

// What a rank computes with: its own B times its own A on its own weight.
void expect_ranks_own_sums(const ModelSource& merged, const RankFiles& base,
                           const std::vector<ForeignTensor>& tensors, const RankTensors& lora) {
  for (const ForeignTensor& tensor : tensors) {
    const std::string key = tensor.name.substr(tensor.name.find('.') + 1);
    const std::string module = key.substr(0, key.rfind('.'));
    std::vector<float> expected = floats(*base.sources[tensor.file], tensor.name);
    if (key.ends_with(".weight") && lora.contains(module + ".lora_A.default.weight")) {
      const Matrix& a = lora.at(module + ".lora_A.default.weight");
      const Matrix& b = lora.at(module + ".lora_B.default.weight");
      const auto width = static_cast<size_t>(tensor.shape[1]);
      for (int64_t row = 0; row < tensor.shape[0]; ++row) {
        add_low_rank(testing::rows(b, row, 1).values, a.values, 8.0F / kRank,
                     std::span(expected).subspan(static_cast<size_t>(row) * width, width));
      }
    }
    std::vector<float> got = expected;  // padding stays
    merged.reader->assemble(tensor, formats::Dtype::kF32, std::as_writable_bytes(std::span(got)));
    EXPECT_TRUE(
        std::ranges::equal(std::as_bytes(std::span(expected)), std::as_bytes(std::span(got))))
        << tensor.name;
  }
}

void check_family(const testing::NamedSpec& family, int64_t tensor, bool experts) {
  SCOPED_TRACE(family.name);
  const testing::TemporaryFolder place;
  const auto model = testing::made_model(family.spec);
  const MegatronLayout layout{.tensor = tensor, .names = MegatronNames::kMindSpeed};
  write_megatron(*model, place / "base", {.layout = layout}, {});
  const auto tensors = megatron_tensors(family.spec, model->table, layout);
  testing::write_lora(place / "base", place / "lora", {}, [&](const MegatronRank& rank) {
    return adapters_of(tensors, static_cast<size_t>(rank.tensor), experts);
  });
  const auto merged = open_model(place / "lora");
  const RankFiles base = open_rank_files((place / "base") / "iter_0000001");
  for (size_t file = 0; file < base.sources.size(); ++file) {
    std::vector<ForeignTensor> own = tensors;
    std::erase_if(own, [&](const ForeignTensor& t) { return t.file != file; });
    expect_ranks_own_sums(*merged, base, own, adapters_of(tensors, file, experts));
  }
}

TEST(MegatronAdapterFamilies, gives_every_rank_of_every_family_its_own_sum) {
  for (const testing::NamedSpec& family : testing::small_models()) {
    if (family.spec.attention_gate == model::AttentionGate::kHead ||
        family.spec.compressed_attention)
      continue;  // no form of Megatron's
    const bool cut = family.spec.num_query_groups % 2 == 0 && !family.spec.gated_delta_net &&
                     !family.spec.mamba2;
    const bool stacked = family.name == "dbrx" || family.name == "gpt_oss";
    check_family(family, cut ? 2 : 1, /*experts=*/!stacked);
    if (stacked) {
      EXPECT_NE(testing::refusal([&] {
                  check_family(family, 2, true);
                }).find("is no linear layer of its own"),
                std::string::npos);
    }
  }
}

}  // namespace
}  // namespace qianli::convert
