#include "qianli/formats/safetensors_folder.h"

#include <gtest/gtest.h>

#include "tests/formats/bytes.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

void fill_with_first_letter(const TensorSpec& tensor, const ByteSink& sink) {
  sink(as_bytes(std::string(tensor.num_bytes(), tensor.name[0])));
}

void write_one(const fs::path& path, const std::string& name) {
  write_safetensors(path, {{name, Dtype::kU8, {1}}}, fill_with_first_letter);
}

void write_index(const TemporaryFolder& folder, const std::string& weight_map) {
  spill(folder / "model.safetensors.index.json", "{\"weight_map\":" + weight_map + "}");
}

TEST(safetensors_folder, shards_and_index_are_those_of_hugging_face) {
  TemporaryFolder folder;
  const std::vector<TensorSpec> tensors{{"b", Dtype::kU8, {4}},
                                        {"a", Dtype::kU8, {4}},
                                        {"large", Dtype::kU8, {20}},
                                        {"c", Dtype::kU8, {3}}};
  write_sharded(folder.path(), tensors, 10, fill_with_first_letter);
  EXPECT_EQ(slurp(folder / "model.safetensors.index.json"), R"({
  "metadata": {
    "total_size": 31
  },
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00001-of-00003.safetensors",
    "c": "model-00003-of-00003.safetensors",
    "large": "model-00002-of-00003.safetensors"
  }
}
)");
  ASSERT_TRUE(SafetensorsFolder::exists(folder.path()));
  const auto model = SafetensorsFolder::open(folder.path());
  EXPECT_EQ(model.files().size(), 3u);
  EXPECT_EQ(model.entries().size(), 4u);
  EXPECT_EQ(model.at("large").bytes.size(), 20u);
  EXPECT_EQ(model.at("c").bytes[2], std::byte{'c'});
  EXPECT_EQ(model.find("d"), nullptr);
  expect_error(kCode, "'d'", [&] { (void)model.at("d"); });
  expect_error(kCode, "holds",
               [&] { write_sharded(folder.path(), tensors, 10, fill_with_first_letter); });
}

TEST(safetensors_folder, what_fits_is_one_file_without_index) {
  TemporaryFolder folder;
  write_sharded(folder.path(), {{"a", Dtype::kU8, {4}}, {"b", Dtype::kU8, {6}}}, 10,
                fill_with_first_letter);
  EXPECT_TRUE(fs::exists(folder / "model.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "model.safetensors.index.json"));
  EXPECT_EQ(SafetensorsFolder::open(folder.path()).entries().size(), 2u);
}

TEST(safetensors_folder, stem_chooses_the_names) {
  TemporaryFolder folder;
  write_sharded(folder.path(), {{"a", Dtype::kU8, {4}}, {"b", Dtype::kU8, {6}}}, 6,
                fill_with_first_letter, "adapter_model");
  EXPECT_TRUE(fs::exists(folder / "adapter_model-00002-of-00002.safetensors"));
  EXPECT_FALSE(SafetensorsFolder::exists(folder.path()));
  EXPECT_EQ(SafetensorsFolder::open(folder.path(), "adapter_model").entries().size(), 2u);
}

TEST(safetensors_folder, two_tensors_of_one_name_are_refused_before_writing) {
  TemporaryFolder folder;
  expect_error(kCode, "two tensors named 'a'", [&] {
    write_sharded(folder.path(), {{"a", Dtype::kU8, {4}}, {"a", Dtype::kU8, {4}}}, 4,
                  fill_with_first_letter);
  });
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(safetensors_folder, file_names_of_the_index_stay_in_the_folder) {
  TemporaryFolder outside, folder;
  write_one(outside / "x.safetensors", "a");
  const std::string escape = "../" + outside.path().filename().string() + "/x.safetensors";
  ASSERT_TRUE(fs::exists(folder.path() / escape));
  for (const std::string& name :
       {escape, (outside / "x.safetensors").string(), std::string(".."), std::string("."),
        std::string(""), std::string("a\\\\b"), std::string("a\\u0000b")}) {
    write_index(folder, "{\"a\":\"" + name + "\"}");
    expect_error(kCode, "'a': expected the name of a file in this folder",
                 [&] { SafetensorsFolder::open(folder.path()); });
  }
}

TEST(safetensors_folder, index_must_agree_with_the_shards) {
  TemporaryFolder folder;
  expect_error(kCode, "found neither", [&] { SafetensorsFolder::open(folder.path()); });
  write_one(folder / "1.safetensors", "a");
  write_one(folder / "2.safetensors", "b");
  const auto refused = [&](const std::string& map, std::string_view reason) {
    write_index(folder, map);
    expect_error(kCode, reason, [&] { SafetensorsFolder::open(folder.path()); });
  };
  refused("[]", "expected an object 'weight_map'");
  refused("{}", "names no tensor");
  refused(R"({"a":1})", "expected the name of a file");
  refused(R"({"a":"1.safetensors","a":"2.safetensors"})", "duplicate key 'a'");
  refused(R"({"a":"3.safetensors"})", "cannot open");
  refused(R"({"a":"1.safetensors","c":"2.safetensors"})", "'c' is not in 2.safetensors");
  refused(R"({"a":"2.safetensors","b":"2.safetensors"})", "'a' is not in 2.safetensors");
  write_index(folder, R"({"a":"1.safetensors"})");
  EXPECT_EQ(SafetensorsFolder::open(folder.path()).entries().size(), 1u);
  fs::remove(folder / "2.safetensors");
  write_safetensors(folder / "2.safetensors", {{"a", Dtype::kU8, {1}}, {"b", Dtype::kU8, {1}}},
                    fill_with_first_letter);
  refused(R"({"a":"1.safetensors","b":"2.safetensors"})", "'a' stands in 1.safetensors and in");
}

TEST(safetensors_folder, tensors_the_index_does_not_name_are_not_seen) {
  TemporaryFolder folder;
  write_safetensors(folder / "1.safetensors", {{"a", Dtype::kU8, {1}}, {"b", Dtype::kU8, {1}}},
                    fill_with_first_letter);
  write_index(folder, R"({"a":"1.safetensors"})");
  const auto model = SafetensorsFolder::open(folder.path());
  EXPECT_EQ(model.entries().size(), 1u);
  EXPECT_EQ(model.find("b"), nullptr);
}

TEST(safetensors_folder, reads_a_model_of_the_reference_writer) {
  const auto model = SafetensorsFolder::open(testing::source_path("tests/golden/models/qwen3"));
  EXPECT_GT(model.entries().size(), 10u);
  EXPECT_EQ(model.at("model.embed_tokens.weight").shape.size(), 2u);
}

}  // namespace
}  // namespace qianli::formats
