// Adapters of every linear layer of every family, experts in one tensor among them.
#include <gtest/gtest.h>

#include <map>

#include "qianli/convert/adapter/adapter.h"
#include "qianli/convert/hugging_face/tensors.h"
#include "qianli/model/stacked_experts.h"
#include "qianli/model/tuned_table.h"
#include "tests/convert/made_model.h"

namespace qianli::convert {
namespace {

std::vector<float> values_of(const ModelSource& model, size_t parameter) {
  const ForeignTensor tensor = own_tensors(model.table)[parameter];
  std::vector<float> values(static_cast<size_t>(model.table[parameter].elements()));
  model.reader->assemble(tensor, formats::Dtype::kF32, std::as_writable_bytes(std::span(values)));
  return values;
}

// W + scale B A, expert by expert and module by module.
std::vector<float> sum(std::vector<float> weight, const std::vector<float>& a,
                       const std::vector<float>& b, const model::ParameterEntry& entry,
                       const std::vector<model::ModuleRows>& modules, int64_t rank, double scale) {
  const int64_t experts = entry.expert ? entry.shape[0] : 1, columns = entry.shape.back();
  const int64_t rows = entry.elements() / experts / columns;
  int64_t adapted = 0;
  for (const auto& module : modules) adapted += module.count;
  for (int64_t e = 0; e < experts; ++e) {
    int64_t before = 0;
    for (size_t m = 0; m < modules.size(); ++m) {
      for (int64_t r = 0; r < modules[m].count; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          double product = 0;
          for (int64_t k = 0; k < rank; ++k) {
            const int64_t a_row =
                (e * static_cast<int64_t>(modules.size()) + static_cast<int64_t>(m)) * rank + k;
            const int64_t b_row = e * adapted + before + r;
            product += double{b[static_cast<size_t>(b_row * rank + k)]} *
                       double{a[static_cast<size_t>(a_row * columns + c)]};
          }
          float& element =
              weight[static_cast<size_t>((e * rows + modules[m].first + r) * columns + c)];
          element = static_cast<float>(double{element} + scale * product);
        }
      }
      before += modules[m].count;
    }
  }
  return weight;
}

TEST(AdapterFamilies, every_module_has_a_name_and_is_merged_into_its_rows) {
  constexpr int64_t kRank = 2;
  const config::TuneConfig tune{.method = "lora", .r = kRank, .alpha = 6};
  int64_t stacked = 0;
  for (const auto& [name, spec] : testing::small_models()) {
    SCOPED_TRACE(name);
    Table table;
    for (auto& tuned : model::tuned_table(spec, tune)) {
      if (model::is_adapter(tuned.entry.name)) table.push_back(std::move(tuned.entry));
    }
    AdapterSource source{.model = testing::made_numbers(spec, table),
                         .tensors = hugging_face_tensors(table),
                         .config = {{"peft_type", "LORA"}, {"r", kRank}, {"lora_alpha", 6}}};
    check_cover(table, source.tensors, name);
    std::map<std::string, std::vector<float>> adapters;
    for (size_t i = 0; i < table.size(); ++i) adapters[table[i].name] = values_of(*source.model, i);

    const auto base = testing::made_numbers(spec, model::parameter_table(spec));
    const auto merged = with_adapter(testing::made_numbers(spec, base->table), as_peft(source));
    for (size_t i = 0; i < base->table.size(); ++i) {
      const model::ParameterEntry& entry = base->table[i];
      const std::vector<model::ModuleRows> modules = model::adapted_rows(entry, tune);
      if (modules.empty()) continue;
      stacked += is_stacked(entry);
      const std::string module = model::module_of(entry.name);
      const auto expected =
          sum(values_of(*base, i), adapters.at(module + ".lora_A"), adapters.at(module + ".lora_B"),
              entry, modules, kRank, tune.scale());
      const auto got = values_of(*merged, i);
      for (size_t n = 0; n < expected.size(); ++n)
        ASSERT_NEAR(got[n], expected[n], 1e-6) << entry.name << "[" << n << "]";
    }
  }
  EXPECT_GE(stacked, 6);  // gpt-oss, Step-3.5, DBRX
}

}  // namespace
}  // namespace qianli::convert
