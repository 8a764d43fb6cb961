// Rank files as others write them: older versions, arguments beside, folders that are missing.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/megatron/rank_files.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/torch_file.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Value;
using testing::weights;

fs::path golden(const char* model) { return testing::source_path("tests/golden/models") / model; }

using Bytes = std::vector<std::byte>;
using Change = std::function<void(const formats::TensorSpec& tensor, Bytes& bytes)>;

Bytes bytes_of(const formats::TensorSource& source, const formats::TensorSpec& tensor) {
  Bytes bytes;
  formats::stream(source, tensor, [&](std::span<const std::byte> piece) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
  });
  return bytes;
}

// Copies a checkpoint under another version, or none, with other bytes.
void write_version(const fs::path& from, const fs::path& to, const Value& version,
                   const Change& change) {
  const RankFiles files = open_rank_files(from / "iter_0000001");
  const auto ranks = megatron_ranks(files.layout);
  for (size_t f = 0; f < ranks.size(); ++f) {
    const formats::TensorSource& source = *files.sources[f];
    formats::Entries model;
    for (const formats::TensorSpec& tensor : source.tensors()) {
      const std::string key = tensor.name.substr(tensor.name.find('.') + 1);
      model.emplace_back(Value::text(key),
                         formats::tensor_to_write({key, tensor.dtype, tensor.shape}));
    }
    formats::Entries root = {{Value::text("args"), *files.first->root().find("args")},
                             {Value::text("model"), Value::dict(std::move(model))}};
    if (!version.is_none()) root.emplace_back(Value::text("checkpoint_version"), version);
    const fs::path path = to / rank_folder(files.layout, ranks[f]) / "model_optim_rng.pt";
    create_folder(path.parent_path(), FileRole::kCheckpoint);
    formats::write_torch_file(path, Value::dict(std::move(root)),
                              [&](const formats::TensorSpec& tensor, const auto& sink) {
                                Bytes bytes = bytes_of(source, source.at("model." + tensor.name));
                                change(tensor, bytes);
                                sink(bytes);
                              });
  }
}

// Rows [heads, 3, size] in the order of an older version: row (h, w, j) becomes row place(h, w, j).
Change reordered(int64_t heads, int64_t size,
                 const std::function<int64_t(int64_t h, int64_t w, int64_t j)>& place) {
  return [=](const formats::TensorSpec& tensor, Bytes& bytes) {
    if (tensor.name.find("query_key_value") == std::string::npos) return;
    ASSERT_EQ(tensor.shape[0], heads * 3 * size);
    const size_t row = bytes.size() / static_cast<size_t>(tensor.shape[0]);
    const Bytes old = bytes;
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t w = 0; w < 3; ++w) {
        for (int64_t j = 0; j < size; ++j) {
          std::memcpy(bytes.data() + static_cast<size_t>(place(h, w, j)) * row,
                      old.data() + static_cast<size_t>((h * 3 + w) * size + j) * row, row);
        }
      }
    }
  };
}

std::string refusal(const fs::path& path) {
  try {
    open_model(path);
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "no error";
}

class RankFile : public ::testing::Test {
 protected:
  // In two tensor ranks.
  void write(const char* model, MegatronNames names) {
    source_ = open_model(golden(model));
    write_megatron(*source_, megatron(), {.layout = {.tensor = 2, .names = names}}, {});
  }
  fs::path megatron() const { return folder_ / "megatron"; }
  fs::path other() const { return folder_ / "other"; }

  testing::TemporaryFolder folder_;
  std::unique_ptr<ModelSource> source_;
};

TEST_F(RankFile, of_an_older_version_has_its_rows_put_in_order) {
  write("gpt2", MegatronNames::kLegacy);
  const int64_t heads = source_->spec.num_attention_heads / 2, size = source_->spec.head_dim;
  const auto apart = [=](int64_t h, int64_t w, int64_t j) { return (w * heads + h) * size + j; };
  const auto woven = [=](int64_t h, int64_t w, int64_t j) { return (h * size + j) * 3 + w; };
  const std::string expected = weights(golden("gpt2"));
  int count = 0;
  for (const auto& [version, place] :
       {std::pair<Value, std::function<int64_t(int64_t, int64_t, int64_t)>>{Value(), apart},
        {Value::integer(0), apart},
        {Value::real(1.0), woven}}) {
    const fs::path from = folder_ / std::to_string(count), back = from.string() + "_back";
    ++count;
    write_version(megatron(), from, version, reordered(heads, size, place));
    write_hugging_face(*open_model(from), back, {}, {});
    EXPECT_EQ(weights(back), expected) << version.shown();
  }
}

TEST_F(RankFile, of_a_version_that_contradicts_its_names_or_heads_is_refused) {
  const auto untouched = [](const formats::TensorSpec&, Bytes&) {};
  write("llama2", MegatronNames::kCore);
  write_version(megatron(), other(), Value::real(1.0), untouched);
  EXPECT_NE(refusal(other()).find("checkpoint_version: expected 2 or 3 with the names of "
                                  "Megatron-core, got 1"),
            std::string::npos)
      << refusal(other());
  write_version(megatron(), folder_ / "new", Value::real(4.0), untouched);
  EXPECT_NE(refusal(folder_ / "new").find("expected 0, 1, 2 or 3, got 4"), std::string::npos);
  // Converters that leave the version out have never had another order.
  write_version(megatron(), folder_ / "none", Value(), untouched);
  write_hugging_face(*open_model(folder_ / "none"), folder_ / "back", {}, {});
  EXPECT_EQ(weights(folder_ / "back"), weights(golden("llama2")));

  fs::remove_all(megatron());
  write("llama2", MegatronNames::kLegacy);
  write_version(megatron(), folder_ / "grouped", Value::integer(0), untouched);
  EXPECT_NE(refusal(folder_ / "grouped").find("(6 heads, 2 groups), got 0"), std::string::npos)
      << refusal(folder_ / "grouped");
}

TEST_F(RankFile, has_its_arguments_inside_or_beside) {
  source_ = open_model(golden("llama2"));
  write_megatron(*source_, megatron(), {.layout = {.tensor = 2}, .args_beside = true}, {});
  const fs::path iteration = megatron() / "iter_0000001";
  const auto rank = formats::TorchFile::open(iteration / "mp_rank_01" / "model_optim_rng.pt");
  EXPECT_EQ(rank->root().find("args"), nullptr);
  const auto beside = formats::TorchFile::open(iteration / "arguments.pt");
  EXPECT_NE(beside->root().find("args")->find("hidden_size"), nullptr);
  write_hugging_face(*open_model(megatron()), folder_ / "back", {}, {});
  EXPECT_EQ(weights(folder_ / "back"), weights(golden("llama2")));
  fs::remove(iteration / "arguments.pt");
  EXPECT_NE(refusal(megatron()), "no error");
}

TEST_F(RankFile, that_is_missing_is_named_with_what_asks_for_it) {
  write("llama2", MegatronNames::kCore);
  fs::remove_all(megatron() / "iter_0000001" / "mp_rank_01");
  const std::string text = refusal(megatron());
  EXPECT_NE(text.find("mp_rank_01/model_optim_rng.pt: expected a file of each of the 2 ranks"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("tensor_model_parallel_size 2"), std::string::npos) << text;
}

}  // namespace
}  // namespace qianli::convert
