#include "qianli/formats/torch_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <stdexcept>

#include "qianli/formats/number_formats.h"
#include "qianli/formats/safetensors.h"
#include "tests/formats/pickles.h"
#include "tests/support/test_paths.h"

namespace qianli::formats {
namespace {

using testing::source_path;
using testing::TemporaryFolder;
constexpr auto kCode = ExitCode::kCheckpoint;

fs::path golden(const std::string& name) { return source_path("tests/golden/formats/" + name); }

std::string bytes_in(const TensorSource& source, std::string_view name) {
  const TensorSpec& tensor = source.at(name);
  std::string out(tensor.num_bytes(), '\0');
  source.read(tensor, std::as_writable_bytes(std::span(out)));
  return out;
}

std::vector<float> floats(const TensorSource& source, std::string_view name) {
  std::vector<float> out(static_cast<size_t>(source.at(name).num_elements()));
  convert_numbers(source.at(name).dtype, as_bytes(bytes_in(source, name)), Dtype::kF32,
                  std::as_writable_bytes(std::span(out)));
  return out;
}

// An archive with these entries, as ZipWriter makes it.
std::string archive(const std::map<std::string, std::string>& entries) {
  const TemporaryFolder place;
  ZipWriter writer(place / "a.zip", FileRole::kCheckpoint);
  for (const auto& [name, bytes] : entries) writer.add(name, bytes);
  writer.commit();
  return slurp(place / "a.zip");
}

std::shared_ptr<const TorchFile> parse(const std::string& bytes) {
  return TorchFile::parse(as_bytes(bytes), "x.pt", FileRole::kCheckpoint);
}

// One float32 tensor of six elements.
std::map<std::string, std::string> small_file() {
  return {{"a/data.pkl", pickles::of("}" + pickles::text("w") +
                                     pickles::tensor("0", 6, 0, "K\2K\3\x86", "K\3K\1\x86") + "s")},
          {"a/data/0", std::string(24, 'x')},
          {"a/byteorder", "little"}};
}

// Megatron checkpoints of PyTorch 1.13, in the pickle protocols 2 and 4.
TEST(torch_file, reads_megatron_checkpoints) {
  const auto file = TorchFile::open(golden("megatron_protocol2.pt"));
  const Value& root = file->root();
  EXPECT_EQ(root.find("iteration")->as_int(), 7);
  EXPECT_EQ(root.find("checkpoint_version")->as_float(), 3.0);
  const Value& arguments = *root.find("args");
  EXPECT_EQ(arguments.as_object()->callable.text(), "argparse.Namespace");
  EXPECT_EQ(arguments.find("hidden_size")->as_int(), 8);
  EXPECT_EQ(arguments.find("lr")->as_float(), 1e-4);
  EXPECT_EQ(arguments.find("bf16")->as_bool(), true);
  EXPECT_EQ(dtype_of(*arguments.find("params_dtype")), Dtype::kBF16);
  EXPECT_TRUE(root.find("model")->find("l._extra_state")->is_none());

  const auto model = open_torch_source(file, *root.find("model"));
  ASSERT_EQ(model->tensors().size(), 3u);
  EXPECT_EQ(floats(*model, "w.weight"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(model->at("wt.weight").shape, (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(floats(*model, "wt.weight"), (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(model->at("b.bias").dtype, Dtype::kBF16);
  EXPECT_EQ(floats(*model, "b.bias"), (std::vector<float>{1, -2}));
  EXPECT_TRUE(model->view(model->at("w.weight")));
  EXPECT_FALSE(model->view(model->at("wt.weight")));

  const auto converted = TorchFile::open(golden("megatron_protocol4.pt"));
  EXPECT_EQ(converted->root().find("iteration")->as_int(), 1);
  const auto whole = open_torch_source(converted, converted->root());
  EXPECT_EQ(floats(*whole, "model.embedding.word_embeddings.weight"),
            (std::vector<float>{1, 2, 3, 4}));
}

TEST(torch_file, reads_every_type_and_view_that_torch_writes) {
  const auto source = open_tensor_source(golden("torch_tensors.pt"));
  const auto expected = SafetensorsFile::open(golden("all_dtypes.safetensors"));
  size_t compared = 0;
  for (const TensorEntry& entry : expected.entries()) {
    if (entry.shape != std::vector<int64_t>{2, 3}) continue;
    EXPECT_EQ(source->at(entry.name).dtype, entry.dtype) << entry.name;
    const std::string bytes = bytes_in(*source, entry.name);
    ASSERT_EQ(bytes.size(), entry.bytes.size());
    EXPECT_EQ(std::memcmp(bytes.data(), entry.bytes.data(), bytes.size()), 0) << entry.name;
    ++compared;
  }
  EXPECT_EQ(compared, 19u);
  EXPECT_EQ(floats(*source, "scalar"), std::vector<float>{1.5f});
  EXPECT_EQ(source->at("empty").shape, (std::vector<int64_t>{0, 4}));
  EXPECT_TRUE(floats(*source, "empty").empty());
  EXPECT_EQ(floats(*source, "parameter"), (std::vector<float>{1, 2}));
  EXPECT_EQ(floats(*source, "repeated"), std::vector<float>(6, 7.0f));
  const std::vector<float> transposed = floats(*source, "transposed");  // [4, 3, 2]
  const std::vector<float> slice = floats(*source, "slice");            // [2, 2, 2]
  EXPECT_EQ(slice, (std::vector<float>{4, 6, 8, 10, 16, 18, 20, 22}));
  for (int a = 0; a < 4; ++a) {
    for (int b = 0; b < 3; ++b) {
      for (int c = 0; c < 2; ++c) {
        EXPECT_EQ(transposed[static_cast<size_t>((a * 3 + b) * 2 + c)],
                  static_cast<float>(c * 12 + b * 4 + a));
      }
    }
  }
  const TensorSpec& view = source->at("transposed");
  std::vector<float> rows(12);
  source->read_rows(view, 1, 2, std::as_writable_bytes(std::span(rows)));
  EXPECT_EQ(rows, std::vector<float>(transposed.begin() + 6, transposed.begin() + 18));
}

TEST(torch_file, reads_objects_of_python_and_numpy_as_plain_values) {
  const auto file = TorchFile::open(golden("torch_objects.pt"));
  const Value& root = file->root();
  const Value& arguments = *root.find("args");
  EXPECT_EQ(*arguments.find("name")->as_text(), "千");
  EXPECT_EQ(arguments.find("betas")->shown(), "(0.9, 0.95)");
  EXPECT_EQ(arguments.find("big")->shown(), "1208925819614629174706176");
  EXPECT_EQ(arguments.find("negative")->as_int(), -(int64_t{1} << 40));
  EXPECT_EQ(arguments.find("backend")->shown(), "__main__.AttnBackend(1)");
  EXPECT_EQ(arguments.find("device")->shown(), "torch.device('cpu')");
  EXPECT_EQ(root.find("np_float")->as_float(), 0.1);
  EXPECT_EQ(root.find("np_int")->as_int(), -7);
  EXPECT_EQ(*root.find("extra_state")->as_bytes(), "state");
  EXPECT_EQ(root.find("size")->as_integers(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(*root.find("bytes")->as_bytes(), std::string("\0\xff", 2));
  EXPECT_EQ(root.find("set")->items()->size(), 2u);
  EXPECT_EQ(root.find("ordered")->shown(), "{'a': 1, 'b': [True, None]}");
  const auto source = open_torch_source(file, root);
  EXPECT_EQ(source->at("np_rng_state.1").shape, std::vector<int64_t>{624});
  EXPECT_EQ(source->at("np_rng_state.1").dtype, Dtype::kU32);
  EXPECT_EQ(bytes_in(*source, "columns"),
            (std::string("\0\0\1\0\2\0\3\0\4\0\5\0", 12)));  // row after row
  EXPECT_EQ(floats(*source, "lists.x.w"), (std::vector<float>{1, 1}));
}

TEST(torch_file, archives_that_do_not_fit_their_pickle_are_refused) {
  EXPECT_TRUE(parse(archive(small_file()))->root().find("w")->as_tensor());
  const auto refused = [](const std::string& name, const std::string& content,
                          std::string_view reason) {
    auto entries = small_file();
    entries[name] = content;
    expect_error(kCode, reason, [&] { parse(archive(entries)); });
  };
  refused("a/byteorder", "big", "expected little-endian");
  refused("a/data/0", "short", "data/0: expected 24 bytes, got 5");
  refused("a/data.pkl", "cos\nsystem\n", "pickle, byte");
  auto entries = small_file();
  entries.erase("a/data/0");
  expect_error(kCode, "expected an entry data/0", [&] { parse(archive(entries)); });
  entries.erase("a/data.pkl");
  expect_error(kCode, "no data.pkl", [&] { parse(archive(entries)); });
  expect_error(kCode, "PyTorch before 1.6", [] {
    parse(std::string("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15));
  });
}

TEST(torch_file, truncated_anywhere_is_refused) {
  const std::string whole = slurp(golden("megatron_protocol2.pt"));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse(whole.substr(0, size)), CheckpointError) << size;
  }
}

TEST(torch_file, damaged_pickles_are_noticed_by_their_crc) {
  std::string bytes = archive(small_file());
  const size_t place = bytes.find("FloatStorage");
  bytes[place] = 'G';
  expect_error(kCode, "CRC-32", [&] { parse(bytes); });
}

std::vector<float> counting(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return values;
}

TEST(torch_file, written_files_are_read_again) {
  const TemporaryFolder place;
  const std::vector<TensorSpec> specs{{"w", Dtype::kF32, {2, 3}},
                                      {"b", Dtype::kBF16, {4}},
                                      {"f8", Dtype::kF8E4M3, {3}},
                                      {"empty", Dtype::kF32, {0}},
                                      {"scalar", Dtype::kI64, {}}};
  Entries model;
  for (const TensorSpec& spec : specs) {
    model.emplace_back(Value::text(spec.name), tensor_to_write(spec));
  }
  model.emplace_back(Value::text("tied"), tensor_to_write(specs[0]));
  Object arguments{.callable = {"argparse", "Namespace"},
                   .arguments = Value::tuple({}),
                   .state = Value::dict({{Value::text("lr"), Value::real(0.25)}})};
  const Value root = Value::dict(
      {{Value::text("model"), Value::dict(model)},
       {Value::text("args"), Value::object(arguments)},
       {Value::text("more"),
        Value::list({Value(), Value::boolean(true), Value::integer(int64_t{1} << 40),
                     Value::tuple({Value::text("千")}), Value::bytes(std::string("\0\xff", 2)),
                     Value::global("torch", "bfloat16")})}});
  std::vector<std::string> asked;
  write_torch_file(place / "out.pt", root, [&](const TensorSpec& tensor, const ByteSink& sink) {
    asked.push_back(tensor.name);
    std::string bytes(tensor.num_bytes(), '\0');
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i);
    for (const char& byte : bytes) sink(as_bytes({&byte, 1}));  // in any pieces
  });
  EXPECT_EQ(asked, (std::vector<std::string>{"w", "b", "f8", "empty", "scalar"}));
  const auto file = TorchFile::open(place / "out.pt");
  const auto source = open_torch_source(file, *file->root().find("model"));
  for (const TensorSpec& spec : specs) {
    EXPECT_EQ(source->at(spec.name).dtype, spec.dtype);
    EXPECT_EQ(source->at(spec.name).shape, spec.shape);
    const std::string bytes = bytes_in(*source, spec.name);
    for (size_t i = 0; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], static_cast<char>(i));
  }
  EXPECT_EQ(bytes_in(*source, "tied"), bytes_in(*source, "w"));
  EXPECT_EQ(file->root().find("args")->find("lr")->as_float(), 0.25);
  EXPECT_EQ(file->root().find("more")->shown(),
            "[None, True, 1099511627776, ('千'), 2 bytes, torch.bfloat16]");
  // tools/reference/check_formats.py lets torch read this very file.
  EXPECT_EQ(slurp(place / "out.pt"), slurp(golden("qianli.pt")));
  // Storages begin at multiples of 64 bytes, for readers that map the file.
  const auto entries =
      parse_zip(as_bytes(slurp(place / "out.pt")), "out.pt", FileRole::kCheckpoint);
  const auto* front = entries.front().bytes.data();
  for (const ZipEntry& entry : entries) EXPECT_EQ((entry.bytes.data() - front) % 64, 0);
}

TEST(torch_file, what_cannot_be_written_is_said_so) {
  const TemporaryFolder place;
  const auto write = [&](const Value& root) {
    write_torch_file(place / "out.pt", root, [](const TensorSpec&, const ByteSink&) {});
  };
  expect_error(kCode, "objects of 'os.system' are not written", [&] {
    write(Value::object({.callable = {"os", "system"}, .arguments = Value::tuple({})}));
  });
  expect_error(kCode, "values like this", [&] { write(Value::global("os", "system")); });
  expect_error(kCode, "torch has no tensors of type F4", [&] {
    write(tensor_to_write({"t", Dtype::kF4, {2}}));
  });
  expect_error(kCode, "two tensors named 't' of different shapes", [&] {
    write(Value::list(
        {tensor_to_write({"t", Dtype::kF32, {2}}), tensor_to_write({"t", Dtype::kF32, {3}})}));
  });
  EXPECT_THROW(write(tensor_to_write({"t", Dtype::kF32, {2}})), std::logic_error);
  EXPECT_TRUE(fs::is_empty(place.path()));
}

TEST(torch_file, model_folders_are_read_with_their_shards) {
  const TemporaryFolder place;
  const std::vector<float> values = counting(6);
  const auto write = [&](const std::string& file, const std::string& name) {
    write_torch_file(
        place / file, Value::dict({{Value::text(name), tensor_to_write({name, Dtype::kF32, {6}})}}),
        [&](const TensorSpec&, const ByteSink& sink) { sink(std::as_bytes(std::span(values))); });
  };
  write("pytorch_model-00001-of-00002.bin", "a");
  write("pytorch_model-00002-of-00002.bin", "b");
  const auto index = [&](const std::string& map) {
    spill(place / "pytorch_model.bin.index.json", "{\"weight_map\":{" + map + "}}");
  };
  index(R"("a":"pytorch_model-00001-of-00002.bin","b":"pytorch_model-00002-of-00002.bin")");
  const auto source = open_tensor_source(place.path());
  EXPECT_EQ(source->tensors().size(), 2u);
  EXPECT_EQ(floats(*source, "b"), values);
  index(R"("b":"pytorch_model-00001-of-00002.bin")");
  expect_error(kCode, "not in pytorch_model-00001-of-00002.bin as the index says",
               [&] { open_tensor_source(place.path()); });
  index(R"("b":"../x.bin")");
  expect_error(kCode, "expected the name of a file in this folder",
               [&] { open_tensor_source(place.path()); });
}

}  // namespace
}  // namespace qianli::formats
