#include "tests/convert/made_model.h"

#include <cstring>
#include <stdexcept>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/model/hugging_face.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

class MadeWeights : public formats::TensorSource {
 public:
  MadeWeights(const convert::Table& table, bool numbers)
      : TensorSource("made weights"), numbers_(numbers) {
    for (const model::ParameterEntry& entry : table)
      add({.name = entry.name, .dtype = formats::Dtype::kF32, .shape = entry.shape});
  }

 private:
  void copy_rows(size_t index, int64_t first, int64_t, std::span<std::byte> out) const override {
    const uint64_t skip = static_cast<uint64_t>(first) * formats::row_bytes(tensors()[index]) / 4;
    for (size_t i = 0; i < out.size() / 4; ++i) {
      const auto bits = static_cast<uint32_t>((index << 22U) + skip + i) * 2654435761U;
      const float number = static_cast<float>(bits >> 16U) / 65536.0F - 0.5F;
      std::memcpy(out.data() + 4 * i, numbers_ ? static_cast<const void*>(&number) : &bits, 4);
    }
  }

  bool numbers_;
};

std::unique_ptr<convert::ModelSource> made(const model::ModelSpec& spec, convert::Table table,
                                           bool numbers) {
  auto made = std::make_unique<convert::ModelSource>();
  made->kind = "made model";
  made->spec = spec;
  made->table = std::move(table);
  std::vector<convert::ForeignTensor> tensors;
  for (size_t i = 0; i < made->table.size(); ++i) {
    const int64_t rows = convert::matrix_rows(made->table[i]);
    const int64_t columns = convert::matrix_columns(made->table[i]);
    const convert::Part whole{.parameter = i,
                              .rows = rows,
                              .columns = columns,
                              .foreign_rows = rows,
                              .foreign_columns = columns};
    tensors.push_back(
        {.name = made->table[i].name, .shape = made->table[i].shape, .parts = {whole}});
  }
  std::vector<std::shared_ptr<const formats::TensorSource>> files = {
      std::make_shared<MadeWeights>(made->table, numbers)};
  made->reader = std::make_unique<convert::ParameterReader>(made->table, std::move(tensors),
                                                            std::move(files), "made weights");
  return made;
}

}  // namespace

std::vector<NamedSpec> small_models() {
  std::vector<NamedSpec> models;
  for (const char* file : {"tests/golden/families.json", "tests/convert/families.json"}) {
    for (const Json& family : read_json(source_path(file), FileRole::kData)) {
      const auto name = family.at("name").get<std::string>();
      models.push_back({name, model::from_hugging_face(family.at("config"), name)});
    }
  }
  return models;
}

model::ModelSpec small_model(const std::string& name) {
  for (const NamedSpec& model : small_models()) {
    if (model.name == name) return model.spec;
  }
  throw std::out_of_range(name);
}

const convert::ForeignTensor& tensor_named(const std::vector<convert::ForeignTensor>& tensors,
                                           const std::string& name, size_t file) {
  for (const convert::ForeignTensor& tensor : tensors) {
    if (tensor.name == name && tensor.file == file) return tensor;
  }
  throw std::out_of_range(name);
}

std::vector<int64_t> rows_of(const convert::ForeignTensor& tensor) {
  std::vector<int64_t> rows(static_cast<size_t>(tensor.shape[0]), -1);
  for (const convert::Part& part : tensor.parts) {
    for (int64_t r = 0; r < part.rows; ++r)
      rows[static_cast<size_t>(part.foreign_row_of(r))] = part.first_row + r;
  }
  return rows;
}

std::string weights(const std::filesystem::path& folder) {
  return read_file(folder / "model.safetensors", FileRole::kCheckpoint);
}

std::unique_ptr<convert::ModelSource> made_model(const model::ModelSpec& spec) {
  return made(spec, model::parameter_table(spec), /*numbers=*/false);
}

std::unique_ptr<convert::ModelSource> made_numbers(const model::ModelSpec& spec,
                                                   convert::Table table) {
  return made(spec, std::move(table), /*numbers=*/true);
}

}  // namespace qianli::testing
