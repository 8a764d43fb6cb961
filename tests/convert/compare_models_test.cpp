// Differences that are planted, and models that are the same in other forms.
#include "qianli/convert/compare_models.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/checkpoint_source.h"
#include "qianli/formats/hashed_file.h"
#include "qianli/formats/safetensors.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;

fs::path golden() { return testing::source_path("tests/golden/models/llama2"); }

ModelComparison compare(const fs::path& a, const fs::path& b, const CompareOptions& options = {}) {
  return compare_models(a, b, options, {});
}

// The golden model as a checkpoint of training that `ranks` ranks have written: every tensor is
// cut along its rows.
class MadeCheckpoint {
 public:
  explicit MadeCheckpoint(int64_t ranks) : ranks_(ranks) {}

  formats::TrainingState state{.step = 4,
                               .updates_done = 4,
                               .consumed_samples = 32,
                               .seed = 1,
                               .data_fingerprint = "data",
                               .config_yaml = "parallel: {zero: 1}\n"};
  // Flips the lowest bit of an element of "exp_avg.NAME" or "NAME".
  std::string changed;
  size_t changed_element = 0;

  void write(const fs::path& folder) {
    fs::create_directories(folder);
    formats::Manifest manifest{.state = state};
    manifest.model = Json::parse(read_file(golden() / "config.json", FileRole::kCheckpoint));
    const auto model = open_model(golden());
    std::vector<RankFile> files(static_cast<size_t>(ranks_));
    using enum formats::TensorKind;
    for (const auto kind : {kWeight, kExpAvg, kExpAvgSq}) {
      for (size_t i = 0; i < model->table.size(); ++i)
        manifest.tensors.push_back(cut(*model, i, kind, files));
    }
    for (size_t rank = 0; rank < files.size(); ++rank) {
      manifest.files.push_back(formats::write_hashed_safetensors(
          folder, name_of(rank), files[rank].specs,
          [&](const formats::TensorSpec& spec, const formats::ByteSink& sink) {
            sink(std::as_bytes(std::span(files[rank].values.at(spec.name))));
          }));
    }
    write_file_atomically(folder / formats::kManifestName, to_json(manifest),
                          FileRole::kCheckpoint);
  }

 private:
  struct RankFile {
    std::vector<formats::TensorSpec> specs;
    std::map<std::string, std::vector<float>> values;
  };
  static std::string name_of(size_t rank) { return std::to_string(rank) + ".safetensors"; }

  std::vector<float> values_of(const ModelSource& model, size_t parameter,
                               formats::TensorKind kind) const {
    const auto& entry = model.table[parameter];
    std::vector<float> values(static_cast<size_t>(entry.elements()));
    model.reader->assemble(own_tensors(model.table)[parameter], formats::Dtype::kF32,
                           std::as_writable_bytes(std::span(values)));
    for (float& value : values) value += static_cast<float>(kind);
    if (formats::state_name(kind, entry.name) == changed) {
      uint32_t bits = 0;
      std::memcpy(&bits, &values.at(changed_element), 4);
      bits ^= 1U;
      std::memcpy(&values.at(changed_element), &bits, 4);
    }
    return values;
  }

  formats::TensorRecord cut(const ModelSource& model, size_t parameter, formats::TensorKind kind,
                            std::vector<RankFile>& files) const {
    const auto& entry = model.table[parameter];
    const auto values = values_of(model, parameter, kind);
    const std::string key = formats::state_name(kind, entry.name);
    formats::TensorRecord record{.name = entry.name, .kind = kind, .shape = entry.shape};
    const int64_t rows = entry.shape[0], row = entry.elements() / rows;
    for (size_t rank = 0; rank < files.size(); ++rank) {
      const int64_t first = rows * static_cast<int64_t>(rank) / ranks_,
                    end = rows * static_cast<int64_t>(rank + 1) / ranks_;
      if (first == end) continue;
      std::vector<int64_t> shape = entry.shape, offset(shape.size(), 0);
      shape[0] = end - first;
      offset[0] = first;
      files[rank].specs.push_back({key, formats::Dtype::kF32, shape});
      files[rank].values[key] = {values.begin() + first * row, values.begin() + end * row};
      record.slices.push_back({name_of(rank), key, offset, shape});
    }
    return record;
  }

  int64_t ranks_;
};

TEST(CompareModels, the_same_model_in_other_forms_is_equal) {
  const testing::TemporaryFolder folder;
  const auto source = open_model(golden());
  write_megatron(*source, folder / "megatron", {.layout = {.tensor = 2, .pipeline = 2}}, {});
  write_checkpoint(*source, folder / "own", {}, {});
  write_hugging_face(*source, folder / "wide", {.dtype = formats::Dtype::kF64}, {});
  for (const char* other : {"megatron", "own", "wide"}) {
    uint64_t last = 0, total = 1;
    const auto found =
        compare_models(golden(), folder / other, {}, [&](uint64_t done, uint64_t all) {
          EXPECT_GT(done, last);
          last = done;
          total = all;
        });
    EXPECT_TRUE(found.equal(0)) << other;
    EXPECT_EQ(found.tensors, source->table.size());
    EXPECT_EQ(found.elements, model::parameter_count(source->spec));
    EXPECT_EQ(last, total);
  }
}

TEST(CompareModels, one_bit_is_found_in_a_checkpoint_of_another_layout) {
  const testing::TemporaryFolder folder;
  MadeCheckpoint(1).write(folder / "one");
  MadeCheckpoint(3).write(folder / "three");
  EXPECT_TRUE(compare(folder / "one", folder / "three").equal(0));

  const std::string name = "decoder.layers.1.self_attention.linear_proj.weight";
  const auto model = open_model(golden());
  const int64_t columns =
      std::ranges::find(model->table, name, &model::ParameterEntry::name)->shape[1];
  for (const std::string& changed : {name, "exp_avg_sq." + name}) {
    MadeCheckpoint other(3);
    other.changed = changed;
    other.changed_element = static_cast<size_t>(2 * columns + 5);
    other.write(folder / changed);
    const auto found = compare(folder / "one", folder / changed);
    EXPECT_FALSE(found.equal(0));
    ASSERT_EQ(found.differences.size(), 1u);
    const TensorDifference& difference = *found.first(0);
    EXPECT_EQ(difference.name, changed);
    EXPECT_EQ(difference.index_of(difference.elements.first), (std::vector<int64_t>{2, 5}));
    EXPECT_EQ(difference.elements.differing, 1);
    EXPECT_EQ(difference.elements.largest,
              std::abs(difference.elements.first.a - difference.elements.first.b));
    EXPECT_GT(difference.relative(), 0);
    EXPECT_LT(difference.relative(), 1e-6);
    EXPECT_TRUE(found.equal(1e-6));
    const CompareOptions weights{.weights_only = true};
    EXPECT_EQ(compare(folder / "one", folder / changed, weights).equal(0), changed != name);
  }
}

TEST(CompareModels, training_states_are_compared) {
  const testing::TemporaryFolder folder;
  MadeCheckpoint a(1), b(2);
  b.state.step = 5;
  b.state.data_fingerprint = "other data";
  a.write(folder / "a");
  b.write(folder / "b");
  const auto found = compare(folder / "a", folder / "b");
  ASSERT_EQ(found.state.size(), 2u);
  EXPECT_EQ(found.state[0].path, "step");
  EXPECT_EQ(found.state[0].b, "5");
  EXPECT_EQ(found.state[1].b, "other data");
  EXPECT_TRUE(found.differences.empty());
  EXPECT_FALSE(found.equal(0));
  EXPECT_TRUE(compare(folder / "a", folder / "b", {.weights_only = true}).equal(0));
}

TEST(CompareModels, states_that_one_checkpoint_lacks_are_differences) {
  const testing::TemporaryFolder folder;
  MadeCheckpoint(1).write(folder / "trained");
  write_checkpoint(*open_model(golden()), folder / "converted", {}, {});
  const auto found = compare(folder / "trained", folder / "converted");
  const auto* first = found.first(1);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->name, "exp_avg.embedding.word_embeddings.weight");
  EXPECT_TRUE(first->shape_a.has_value());
  EXPECT_FALSE(first->shape_b.has_value());
}

TEST(CompareModels, other_models_differ_in_switches_and_tensors) {
  const testing::TemporaryFolder folder;
  const auto spec = open_model(golden())->spec;
  auto longer = spec, wider = spec;
  ++longer.num_layers;
  wider.ffn_hidden_size += 8;
  write_hugging_face(*testing::made_model(spec), folder / "plain", {}, {});
  write_hugging_face(*testing::made_model(longer), folder / "longer", {}, {});
  write_hugging_face(*testing::made_model(wider), folder / "wider", {}, {});
  const auto more = compare(folder / "plain", folder / "longer");
  ASSERT_FALSE(more.spec.empty());
  EXPECT_EQ(more.spec[0].path, "num_layers");
  EXPECT_EQ(more.spec[0].b, std::to_string(longer.num_layers));
  // Between the layer before and the norm behind it, not at the end.
  const std::string added = "decoder.layers." + std::to_string(spec.num_layers) + ".";
  const auto place = std::ranges::find_if(
      more.differences, [](const TensorDifference& d) { return !d.shape_a.has_value(); });
  ASSERT_NE(place, more.differences.end());
  EXPECT_EQ(place->name, added + "input_layernorm.weight");
  EXPECT_NE(more.differences.back().name.find("output_layer"), std::string::npos);

  const auto sizes = compare(folder / "plain", folder / "wider");
  const auto* first = sizes.first(1e9);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->name, "decoder.layers.0.mlp.linear_fc1.weight");
  EXPECT_NE(first->shape_a, first->shape_b);
  EXPECT_FALSE(first->has_elements());
}

TEST(CompareModels, rounding_is_within_a_tolerance) {
  const testing::TemporaryFolder folder;
  write_hugging_face(*open_model(golden()), folder / "narrow", {.dtype = formats::Dtype::kBF16},
                     {});
  const auto found = compare(golden(), folder / "narrow");
  EXPECT_FALSE(found.equal(0));
  EXPECT_TRUE(found.equal(1.0 / 256));
  EXPECT_FALSE(found.equal(1e-5));
  EXPECT_EQ(found.a.dtypes, std::vector<std::string>{"F32"});
  EXPECT_EQ(found.b.dtypes, std::vector<std::string>{"BF16"});
}

TEST(CompareModels, a_damaged_checkpoint_is_refused) {
  const testing::TemporaryFolder folder;
  MadeCheckpoint(1).write(folder / "a");
  MadeCheckpoint(1).write(folder / "b");
  const fs::path last = folder / "b/0.safetensors";
  std::string bytes = read_file(last, FileRole::kCheckpoint);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_file_atomically(last, bytes, FileRole::kCheckpoint);
  EXPECT_THROW(compare(folder / "a", folder / "b"), CheckpointError);
  EXPECT_THROW(compare(folder / "a", folder / "none"), CheckpointError);
}

TEST(CompareNumbers, finds_first_and_worst_of_unusual_numbers) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const auto tally = [](const std::vector<float>& a, const std::vector<float>& b) {
    return compare_numbers(std::span(a), std::span(b), 100);
  };
  const Tally equal = tally({1, nan, inf, -4}, {1, nan, inf, -4});
  EXPECT_EQ(equal.differing, 0);
  EXPECT_EQ(equal.magnitude, 4);
  EXPECT_EQ(equal.first.at, -1);
  const Tally finite = tally({1, 2, 3, 0.0F}, {1, 2.5F, -3, -0.0F});
  EXPECT_EQ(finite.differing, 3);
  EXPECT_EQ(finite.first.at, 101);
  EXPECT_EQ(finite.worst.at, 102);
  EXPECT_EQ(finite.largest, 6);
  const Tally broken = tally({1, nan, inf}, {2, 1, inf});
  EXPECT_EQ(broken.worst.at, 101);
  EXPECT_EQ(broken.largest, std::numeric_limits<double>::infinity());
  EXPECT_EQ(broken.magnitude, 2);
  TensorDifference difference{.shape_a = {{3}}, .shape_b = {{3}}, .elements = broken};
  EXPECT_FALSE(difference.within(1e300));
  difference.elements = tally({1, 4, 0.0F}, {1, 3, -0.0F});
  EXPECT_TRUE(difference.within(0.25));
  EXPECT_FALSE(difference.within(0.24));
  difference.elements = tally({0.0F}, {-0.0F});
  EXPECT_FALSE(difference.within(0));
  EXPECT_TRUE(difference.within(1e-300));
}

TEST(CompareNumbers, stretches_join_to_the_whole) {
  const std::vector<double> a = {1, 2, 3, 4, 5, 6}, b = {1, 2, 4, 4, 7, 8};
  const std::span whole_a(a), whole_b(b);
  Tally joined = compare_numbers(whole_a.first(2), whole_b.first(2), 0);
  joined.join(compare_numbers(whole_a.subspan(2, 2), whole_b.subspan(2, 2), 2));
  joined.join(compare_numbers(whole_a.subspan(4), whole_b.subspan(4), 4));
  const Tally whole = compare_numbers(whole_a, whole_b, 0);
  EXPECT_EQ(joined.differing, whole.differing);
  EXPECT_EQ(joined.first.at, 2);
  EXPECT_EQ(joined.worst.at, 4);  // the first of two
  EXPECT_EQ(whole.worst.at, 4);
  EXPECT_EQ(joined.largest, whole.largest);
  EXPECT_EQ(joined.magnitude, 8);
}

}  // namespace
}  // namespace qianli::convert
