#include "tests/convert/made_lora.h"

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/convert/megatron/rank_files.h"
#include "qianli/formats/torch_file.h"

namespace qianli::testing {

namespace fs = std::filesystem;
using formats::Value;

Matrix random(std::vector<int64_t> shape, const std::string& name) {
  Matrix matrix = filled(std::move(shape), 0);
  uint64_t state = std::hash<std::string>()(name);
  for (float& value : matrix.values) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    value = static_cast<float>(static_cast<int64_t>(state >> 40U) - (1 << 23)) * 1e-7F;
  }
  return matrix;
}

Matrix rows(const Matrix& of, int64_t first, int64_t count) {
  const auto begin = of.values.begin() + first * of.shape[1];
  return {{count, of.shape[1]}, {begin, begin + count * of.shape[1]}};
}
Matrix columns(const Matrix& of, int64_t first, int64_t count) {
  Matrix out{{of.shape[0], count}, {}};
  for (int64_t r = 0; r < of.shape[0]; ++r) {
    for (int64_t c = 0; c < count; ++c) out.values.push_back(of.at(r, first + c));
  }
  return out;
}
Matrix stacked(const std::vector<Matrix>& matrices) {
  Matrix out{{0, matrices.front().shape[1]}, {}};
  for (const Matrix& matrix : matrices) {
    out.shape[0] += matrix.shape[0];
    out.values.insert(out.values.end(), matrix.values.begin(), matrix.values.end());
  }
  return out;
}

void add_lora(RankTensors& tensors, const std::string& module, const Matrix& a, const Matrix& b) {
  tensors[module + ".lora_A.default.weight"] = a;
  tensors[module + ".lora_B.default.weight"] = b;
}

namespace {

Value with_arguments(const Value& args, const WriteOptions& options) {
  formats::Object object = *args.as_object();
  formats::Entries entries = *object.state.entries();
  if (options.alpha)
    entries.emplace_back(Value::text("lora_alpha"), Value::integer(*options.alpha));
  if (options.r) entries.emplace_back(Value::text("lora_r"), Value::integer(*options.r));
  object.state = Value::dict(std::move(entries));
  return Value::object(std::move(object));
}

}  // namespace

void write_lora(const fs::path& from, const fs::path& to, const WriteOptions& options,
                const std::function<RankTensors(const convert::MegatronRank& rank)>& lora_of) {
  const convert::RankFiles files = convert::open_rank_files(from / "iter_0000001");
  const auto ranks = convert::megatron_ranks(files.layout);
  for (size_t f = 0; f < ranks.size(); ++f) {
    const RankTensors lora = lora_of(ranks[f]);
    const auto is_adapted = [&](const std::string& key) {
      return lora.contains(key.substr(0, key.rfind('.')) + ".lora_A.default.weight");
    };
    formats::Entries model;
    std::map<std::string, std::string> originals;  // by the new name
    for (const formats::TensorSpec& tensor : files.sources[f]->tensors()) {
      if (!options.base) continue;
      std::string key = tensor.name.substr(tensor.name.find('.') + 1);
      if (is_adapted(key)) key.insert(key.rfind('.'), ".base_layer");
      originals[key] = tensor.name;
      model.emplace_back(Value::text(key),
                         formats::tensor_to_write({key, tensor.dtype, tensor.shape}));
    }
    for (const auto& [key, matrix] : lora) {
      model.emplace_back(Value::text(key),
                         formats::tensor_to_write({key, formats::Dtype::kF32, matrix.shape}));
    }
    const Value root = Value::dict(
        {{Value::text("args"), with_arguments(*files.first->root().find("args"), options)},
         {Value::text("model"), Value::dict(std::move(model))}});
    const fs::path path = to / convert::rank_folder(files.layout, ranks[f]) / "model_optim_rng.pt";
    create_folder(path.parent_path(), FileRole::kCheckpoint);
    formats::write_torch_file(path, root, [&](const auto& spec, const auto& sink) {
      if (lora.contains(spec.name))
        return sink(std::as_bytes(std::span(lora.at(spec.name).values)));
      formats::stream(*files.sources[f], files.sources[f]->at(originals.at(spec.name)), sink);
    });
  }
}

std::string refusal(const std::function<void()>& open) {
  try {
    open();
  } catch (const Error& error) {
    return error.what();
  }
  return "opened";
}

}  // namespace qianli::testing
