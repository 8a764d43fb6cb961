#include <algorithm>
#include <cmath>

#include "apps/qianli/compare_print.h"

namespace qianli::app {
namespace {

using convert::TensorDifference;

// JSON has no words for the others.
OrderedJson number_json(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
}

template <class T>
OrderedJson optional_json(const std::optional<T>& value) {
  if (!value) return nullptr;
  if constexpr (std::is_same_v<T, double>)
    return number_json(*value);
  else
    return *value;
}

OrderedJson settings_json(const std::vector<runs::SettingDifference>& settings) {
  auto list = OrderedJson::array();
  for (const auto& setting : settings) {
    list.push_back({{"key", setting.key},
                    {"a", optional_json(setting.a)},
                    {"b", optional_json(setting.b)},
                    {"layout", setting.layout}});
  }
  return list;
}

OrderedJson pair_json(const runs::ValuePair& pair) {
  return {{"a", optional_json(pair.a)},
          {"b", optional_json(pair.b)},
          {"relative", number_json(pair.relative())}};
}

OrderedJson span_json(const runs::StepSpan& span) {
  return {{"steps", span.steps}, {"first", span.first}, {"last", span.last}};
}

OrderedJson metrics_json(const runs::MetricsComparison& metrics, size_t limit) {
  OrderedJson json = {{"equal", metrics.equal()},
                      {"steps", metrics.steps},
                      {"only_a", span_json(metrics.only_a)},
                      {"only_b", span_json(metrics.only_b)},
                      {"cut_off_a", metrics.cut_off_a},
                      {"cut_off_b", metrics.cut_off_b},
                      {"differing_keys", metrics.keys.size()},
                      {"keys", OrderedJson::array()},
                      {"growth", OrderedJson::array()}};
  for (size_t i = 0; i < std::min(limit, metrics.keys.size()); ++i) {
    const runs::KeyDifference& key = metrics.keys[i];
    json["keys"].push_back({{"key", key.key},
                            {"first_step", key.first_step},
                            {"first", pair_json(key.first)},
                            {"steps", key.steps},
                            {"largest_step", key.largest_step},
                            {"largest", number_json(key.largest)}});
  }
  for (const runs::GrowthLine& line : metrics.growth) {
    OrderedJson entry = {{"step", line.step}};
    for (size_t i = 0; i < line.values.size(); ++i)
      entry[metrics.followed[i]] = pair_json(line.values[i]);
    json["growth"].push_back(std::move(entry));
  }
  return json;
}

OrderedJson fields_json(const std::vector<model::FieldDifference>& fields) {
  auto list = OrderedJson::array();
  for (const auto& [path, a, b] : fields) list.push_back({{"key", path}, {"a", a}, {"b", b}});
  return list;
}

OrderedJson element_json(const TensorDifference& tensor, const convert::ElementPair& element) {
  return {{"index", tensor.index_of(element)},
          {"a", number_json(element.a)},
          {"b", number_json(element.b)}};
}

OrderedJson tensor_json(const TensorDifference& tensor) {
  OrderedJson json = {{"name", tensor.name},
                      {"shape_a", optional_json(tensor.shape_a)},
                      {"shape_b", optional_json(tensor.shape_b)}};
  if (!tensor.has_elements()) return json;
  json["differing"] = tensor.elements.differing;
  json["largest"] = number_json(tensor.elements.largest);
  json["magnitude"] = tensor.elements.magnitude;
  json["relative"] = number_json(tensor.relative());
  json["first"] = element_json(tensor, tensor.elements.first);
  json["worst"] = element_json(tensor, tensor.elements.worst);
  return json;
}

OrderedJson model_json(const convert::ComparedModel& model) {
  return {{"path", model.path.string()},
          {"kind", model.kind},
          {"dtypes", model.dtypes},
          {"unused", model.unused},
          {"differing_copies", model.differing_copies}};
}

OrderedJson models_json(const Comparison& found, size_t limit) {
  const convert::ModelComparison& models = *found.models;
  const auto worst = worst_tensors(found);
  OrderedJson json = {{"equal", models.equal(found.tolerance)},
                      {"a", model_json(models.a)},
                      {"b", model_json(models.b)},
                      {"spec", fields_json(models.spec)},
                      {"state", fields_json(models.state)},
                      {"tensors", models.tensors},
                      {"elements", models.elements},
                      {"equal_bit_for_bit", models.tensors - models.differences.size()},
                      {"differing", worst.size()},
                      {"first", nullptr},
                      {"worst", OrderedJson::array()}};
  if (!worst.empty()) json["first"] = tensor_json(*models.first(found.tolerance));
  for (size_t i = 0; i < std::min(limit, worst.size()); ++i)
    json["worst"].push_back(tensor_json(*worst[i]));
  return json;
}

}  // namespace

OrderedJson comparison_json(const Comparison& found, size_t limit) {
  OrderedJson json = {
      {"equal", found.equal()}, {"tolerance", found.tolerance}, {"a", found.a}, {"b", found.b}};
  if (found.settings) json["settings"] = settings_json(*found.settings);
  if (found.metrics) json["metrics"] = metrics_json(*found.metrics, limit);
  if (found.models) json["models"] = models_json(found, limit);
  return json;
}

}  // namespace qianli::app
