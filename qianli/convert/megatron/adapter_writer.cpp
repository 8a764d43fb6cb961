#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "qianli/base/error.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/adapter_modules.h"
#include "qianli/convert/megatron/adapter_tables.h"
#include "qianli/convert/megatron/arguments.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/convert/megatron/write_ranks.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;
using formats::TensorSpec;
using formats::Value;

constexpr std::string_view kA = ".lora_A.weight";

[[noreturn]] void refuse(const std::string& what, const std::string& problem) {
  throw CheckpointError("convert", fmt::format("{}: {}", what, problem));
}

// PEFT's tensors as they would be were the layers' matrices PEFT's: the rows of all A of a layer
// under one another, B with zeros beside its own columns. `tensors` tell names and shapes.
class StackedSource : public formats::TensorSource {
 public:
  StackedSource(const Adapter& adapter, const AdaptedModules& adapted,
                const std::vector<ForeignTensor>& tensors)
      : TensorSource(adapter.tensors.source->source()), tensors_of_(adapter.tensors) {
    const Dtype dtype = common_dtype();
    for (const ForeignTensor& tensor : tensors) {
      add({tensor.name, dtype, tensor.shape});
      const bool is_a = tensor.name.ends_with(kA);
      const size_t begin = kAdapterPrefix.size();
      const std::string module = tensor.name.substr(begin, tensor.name.size() - begin - kA.size());
      std::vector<Piece> pieces;
      if (is_a) {
        for (const std::string& name : adapted.beside(module))
          pieces.push_back({tensors_of_.modules.at(name).a, adapted.places().at(name)});
      } else if (const auto own = tensors_of_.modules.find(module);
                 own != tensors_of_.modules.end()) {
        pieces.push_back({own->second.b, adapted.places().at(module)});
      }
      pieces_.push_back(std::move(pieces));
    }
  }

 private:
  struct Piece {
    const TensorSpec* tensor;
    ModulePlace place;
  };

  // Of all matrices; float32 where they differ.
  Dtype common_dtype() const {
    const Dtype first = tensors_of_.modules.begin()->second.a->dtype;
    const auto alike = [&](const auto& m) {
      return m.second.a->dtype == first && m.second.b->dtype == first;
    };
    return std::ranges::all_of(tensors_of_.modules, alike) ? first : Dtype::kF32;
  }

  void read(const Piece& piece, int64_t first, int64_t count, std::span<std::byte> out,
            Dtype dtype) const {
    std::vector<std::byte> rows(formats::row_bytes(*piece.tensor) * static_cast<uint64_t>(count));
    tensors_of_.source->read_rows(*piece.tensor, first, count, rows);
    formats::convert_numbers(piece.tensor->dtype, rows, dtype, out);
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const TensorSpec& spec = tensors()[index];
    const size_t row = formats::row_bytes(spec), width = row / static_cast<size_t>(spec.shape[1]);
    std::ranges::fill(out, std::byte{0});
    for (const Piece& piece : pieces_[index]) {
      if (spec.name.ends_with(kA)) {
        const int64_t begin = std::max(first, piece.place.offset);
        const int64_t end = std::min(first + count, piece.place.offset + piece.place.rank);
        if (begin >= end) continue;
        read(piece, begin - piece.place.offset, end - begin,
             out.subspan(static_cast<size_t>(begin - first) * row,
                         static_cast<size_t>(end - begin) * row),
             spec.dtype);
        continue;
      }
      const size_t own = static_cast<size_t>(piece.place.rank) * width;
      std::vector<std::byte> rows(own * static_cast<size_t>(count));
      read(piece, first, count, rows, spec.dtype);
      for (size_t r = 0; r < static_cast<size_t>(count); ++r) {
        std::memcpy(out.data() + r * row + static_cast<size_t>(piece.place.offset) * width,
                    rows.data() + r * own, own);
      }
    }
  }

  AdapterTensors tensors_of_;
  std::vector<std::vector<Piece>> pieces_;  // per tensor
};

Value arguments_of(const model::ModelSpec& spec, const MegatronLayout& layout, Dtype dtype,
                   const AdaptedModules& adapted, const OrderedJson& config) {
  const Value base = megatron_arguments(spec, layout, dtype);
  formats::Entries entries = *base.as_object()->state.entries();
  const auto add = [&](const char* name, Value value) {
    entries.emplace_back(Value::text(name), std::move(value));
  };
  add("lora_r", Value::integer(adapted.rank()));
  add("lora_alpha", Value::real(adapted.alpha()));
  formats::Values kinds;
  for (const std::string& kind : adapted.kinds()) kinds.push_back(Value::text(kind));
  add("lora_target_modules", Value::list(std::move(kinds)));
  add("lora_ckpt_filter", Value::boolean(true));
  add(kAdapterOrigin, Value::text(origin_text(config, adapted.places())));
  return Value::object({.callable = {"argparse", "Namespace"},
                        .arguments = Value::tuple({}),
                        .state = Value::dict(std::move(entries))});
}

}  // namespace

bool is_peft_adapter(const fs::path& path) {
  return fs::exists(path / "adapter_config.json") && !fs::exists(path / "config.json");
}

void write_megatron_adapter(const fs::path& peft, const SourceOptions& source,
                            const fs::path& target, const TargetOptions& options,
                            const ProgressFunction& progress) {
  if (source.config.empty()) {
    throw ConfigError("convert",
                      fmt::format("{}: an adapter does not say its model's sizes", peft.string()),
                      "give --config, the base's folder or a preset");
  }
  const OrderedJson config = read_adapter_json(peft);
  ModelSource model;
  model.kind = "PEFT adapter";
  model.path = peft;
  model.spec = spec_of_config(source);
  const Table base = model::parameter_table(model.spec);
  const Adapter adapter = open_peft_adapter(peft, base);
  if (!adapter.config.target_parameters().empty()) {
    refuse(peft.string(), "expected adapters of modules, got target_parameters");
  }
  const auto tensors = megatron_tensors(model.spec, base, options.layout);
  const AdaptedModules adapted(adapter, base, tensors, megatron_ranks(options.layout));
  AdapterTables tables = adapter_tables(base, adapted.layers(), peft.string());
  model.table = std::move(tables.table);
  const auto stacked = std::make_shared<StackedSource>(adapter, adapted, tables.tensors);
  model.reader = std::make_unique<ParameterReader>(
      model.table, std::move(tables.tensors),
      std::vector<std::shared_ptr<const formats::TensorSource>>{stacked}, peft.string());
  const Targets targets(model, std::move(tables.stored), options.dtype, progress);
  check_cover(model.table, targets.tensors(), target.string());
  const Value arguments =
      arguments_of(model.spec, options.layout, targets.prevailing_dtype(), adapted, config);
  write_ranks(targets, arguments, target, options);
}

Proof verify_megatron_adapter(const fs::path& peft, const fs::path& target) {
  const AdapterSource written = open_megatron_adapter(target, {});
  if (written.config != read_adapter_json(peft))
    refuse(target.string(), "expected the adapter_config.json of the adapter, got another");
  ModelSource original;
  original.spec = written.model->spec;
  original.table = written.model->table;
  original.reader = std::make_unique<ParameterReader>(
      original.table, written.tensors, std::vector{open_adapter_tensors(peft).source},
      peft.string());
  if (!original.reader->unused().empty())
    refuse(target.string(), fmt::format("expected {}, found none", original.reader->unused()[0]));
  return verify(original, *written.model);
}

}  // namespace qianli::convert
