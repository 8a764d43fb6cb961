#include "qianli/convert/megatron/adapter_origin.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/convert/assembled_source.h"

namespace qianli::convert {
namespace {

constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";

bool is_a(const ForeignTensor& tensor) { return tensor.name.ends_with(kA); }

std::string module_of(const ForeignTensor& tensor) {
  const size_t begin = kAdapterPrefix.size();
  return tensor.name.substr(begin, tensor.name.size() - begin - kA.size());
}

[[noreturn]] void refuse(const std::string& source, const std::string& problem) {
  throw CheckpointError("convert", fmt::format("{}: {}", source, problem));
}

int64_t number_of(const OrderedJson& value, const std::string& source) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
      value.get<int64_t>() > kMaxAdapterRank)
    refuse(source, "expected an offset and a rank of each module");
  return value.get<int64_t>();
}

// `ranks`: of the layer that each module is in.
ModulePlaces places_of(const OrderedJson& origin, const AdapterConfig& config,
                       const std::map<std::string, int64_t>& ranks, const std::string& source) {
  const OrderedJson modules = origin.value("modules", OrderedJson());
  if (!modules.is_object()) refuse(source, "expected modules");
  ModulePlaces places;
  for (const auto& [name, value] : modules.items()) {
    const auto found = ranks.find(name);
    if (found == ranks.end())
      refuse(source, fmt::format("expected a module of this name: {}", name));
    if (!value.is_array() || value.size() != 2)
      refuse(source, "expected an offset and a rank of each module");
    const ModulePlace place{number_of(value[0], source), number_of(value[1], source)};
    if (place.rank < 1 || place.offset + place.rank > found->second ||
        config.rank(name) != place.rank)
      refuse(source, fmt::format("{}: expected rows of the layer's A, as many as the rank", name));
    places[name] = place;
  }
  return places;
}

// Whether B [out, rank] is zero in all columns but those of the module.
bool is_zero_beside(const formats::TensorSource& stored, const formats::TensorSpec& b,
                    const ModulePlace& place) {
  const auto columns = b.shape[1];
  const std::vector<float> values = float_values(stored, b);
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i) % columns;
    const bool own = column >= place.offset && column < place.offset + place.rank;
    if (!own && values[i] != 0) return false;
  }
  return true;
}

ForeignTensor narrowed(ForeignTensor tensor, const ModulePlace& place) {
  tensor.copy = false;
  tensor.shape[is_a(tensor) ? 0 : 1] = place.rank;
  for (Part& part : tensor.parts) {
    if (is_a(tensor)) {
      part.first_row = place.offset;
      part.rows = part.foreign_rows = place.rank;
    } else {
      part.first_column = place.offset;
      part.columns = part.foreign_columns = place.rank;
    }
  }
  return tensor;
}

// The tensors are the parameters of a model of their own.
AdapterSource of_tensors(std::shared_ptr<ModelSource> stored, std::vector<ForeignTensor> tensors,
                         OrderedJson config) {
  AdapterSource adapter{
      .model = std::make_shared<ModelSource>(), .tensors = {}, .config = std::move(config)};
  ModelSource& model = *adapter.model;
  model.kind = stored->kind;
  model.path = stored->path;
  model.spec = stored->spec;
  model.lora_alpha = stored->lora_alpha;
  model.base = stored;
  for (const ForeignTensor& tensor : tensors) {
    model.table.emplace_back();
    model.table.back().name = tensor.name;
    model.table.back().shape = tensor.shape;
  }
  adapter.tensors = own_tensors(model.table);
  const std::string what = model.path.string();
  model.reader = std::make_unique<ParameterReader>(
      model.table, adapter.tensors,
      std::vector{assembled_source(std::move(stored), std::move(tensors), what)}, what);
  return adapter;
}

}  // namespace

std::string origin_text(const OrderedJson& config, const ModulePlaces& places) {
  OrderedJson modules = OrderedJson::object();
  for (const auto& [name, place] : places) modules[name] = {place.offset, place.rank};
  return OrderedJson{{"config", config}, {"modules", modules}}.dump();
}

AdapterSource as_it_was(AdapterSource adapter, const std::string& text, const std::string& source) {
  const OrderedJson origin = parse_ordered_json(text, source, FileRole::kCheckpoint);
  if (!origin.is_object()) refuse(source, "expected an object");
  const OrderedJson config = origin.value("config", OrderedJson());
  std::map<std::string, int64_t> ranks;
  for (const ForeignTensor& tensor : adapter.tensors) {
    if (is_a(tensor)) ranks[module_of(tensor)] = tensor.shape[0];
  }
  const ModulePlaces places = places_of(origin, AdapterConfig(config, source), ranks, source);
  const auto stored = assembled_source(adapter.model, adapter.tensors, source);
  std::vector<ForeignTensor> tensors;
  for (const ForeignTensor& tensor : adapter.tensors) {
    const auto found = places.find(module_of(tensor));
    const ModulePlace place = found == places.end() ? ModulePlace{} : found->second;
    if (!is_a(tensor) && !is_zero_beside(*stored, stored->at(tensor.name), place)) {
      log::info("convert",
                "{}: {} was trained since in rows of A that were another module's: the adapter "
                "keeps the rank {} that it has in Megatron",
                source, module_of(tensor), tensor.shape[1]);
      return adapter;
    }
    if (found != places.end()) tensors.push_back(narrowed(tensor, place));
  }
  if (tensors.empty()) refuse(source, "expected modules with an adapter, found none");
  return of_tensors(adapter.model, std::move(tensors), config);
}

}  // namespace qianli::convert
