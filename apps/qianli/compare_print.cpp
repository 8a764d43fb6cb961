#include "apps/qianli/compare_print.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "qianli/base/strings.h"
#include "qianli/formats/tensor.h"

namespace qianli::app {
namespace {

using convert::TensorDifference;

// Short enough for a line of a terminal.
std::string shortened(const std::string& text, size_t most = 40) {
  if (text.size() <= most) return text;
  size_t end = most - 3;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // whole letters
  return text.substr(0, end) + "...";
}

// All digits of a float32, or of a double.
std::string number(double value, formats::Dtype dtype) {
  return dtype == formats::Dtype::kF64 ? fmt::format("{}", value)
                                       : fmt::format("{}", static_cast<float>(value));
}

std::string value_text(const std::optional<double>& value) {
  return value ? fmt::format("{}", *value) : "-";
}

std::string share(double relative) { return fmt::format("{:.2g}", relative); }

void print_more(size_t all, size_t limit) {
  if (all > limit) fmt::print("  and {} more (--limit)\n", all - limit);
}

std::string shape_of(const std::optional<TensorDifference::Shape>& shape) {
  return shape ? formats::shape_text(*shape) : "-";
}

std::string plural(int64_t count, const char* thing) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : "s");
}

// "A 1, B 2"
std::string side_by_side(const std::string& a, const std::string& b) {
  return fmt::format("A {}, B {}", a, b);
}

void print_settings(const std::vector<runs::SettingDifference>& settings, size_t limit) {
  for (const bool layout : {true, false}) {
    std::vector<const runs::SettingDifference*> chosen;
    for (const auto& setting : settings) {
      if (setting.layout == layout) chosen.push_back(&setting);
    }
    if (chosen.empty()) continue;
    fmt::print("\n{}\n", layout ? "Layouts differ" : "Settings differ");
    for (size_t i = 0; i < std::min(limit, chosen.size()); ++i)
      fmt::print("  {:<28} A {}, B {}\n", chosen[i]->key, shortened(chosen[i]->a.value_or("-")),
                 shortened(chosen[i]->b.value_or("-")));
    print_more(chosen.size(), limit);
  }
}

void print_span(const char* side, const runs::StepSpan& span) {
  if (span.steps == 0) return;
  fmt::print("Only {} has {}: {} to {}.\n", side, plural(span.steps, "step"), span.first,
             span.last);
}

void print_growth(const runs::MetricsComparison& metrics) {
  fmt::print("\n{:>10}", "step");
  for (const std::string& key : metrics.followed)
    fmt::print("  {:>22} {:>22} {:>9}", "A " + key, "B " + key, "relative");
  fmt::print("\n");
  for (const runs::GrowthLine& line : metrics.growth) {
    fmt::print("{:>10}", line.step);
    for (const runs::ValuePair& pair : line.values)
      fmt::print("  {:>22} {:>22} {:>9}", value_text(pair.a), value_text(pair.b),
                 share(pair.relative()));
    fmt::print("\n");
  }
}

void print_keys(const runs::MetricsComparison& metrics, size_t limit) {
  fmt::print("\n{:<28} {:>10} {:>10} {:>9} {:>10}\n", "metric", "first step", "steps", "largest",
             "at step");
  for (size_t i = 0; i < std::min(limit, metrics.keys.size()); ++i) {
    const runs::KeyDifference& key = metrics.keys[i];
    fmt::print("{:<28} {:>10} {:>10} {:>9} {:>10}\n", shortened(key.key, 60), key.first_step,
               key.steps, share(key.largest), key.largest_step);
  }
  print_more(metrics.keys.size(), limit);
}

void print_metrics(const runs::MetricsComparison& metrics, double tolerance, size_t limit) {
  fmt::print("\n");
  if (metrics.keys.empty()) {
    fmt::print("Metrics are equal{} on {}.\n",
               tolerance > 0 ? fmt::format(" within {:g}", tolerance) : "",
               plural(metrics.steps, "common step"));
  } else {
    const runs::KeyDifference& first = metrics.keys.front();
    fmt::print("Metrics differ first at step {}, {}: {}, relative {}.\n", first.first_step,
               first.key, side_by_side(value_text(first.first.a), value_text(first.first.b)),
               share(first.first.relative()));
  }
  print_span("A", metrics.only_a);
  print_span("B", metrics.only_b);
  if (metrics.cut_off_a) fmt::print("The last line of A is cut off and was left out.\n");
  if (metrics.cut_off_b) fmt::print("The last line of B is cut off and was left out.\n");
  if (metrics.keys.empty()) return;
  print_growth(metrics);
  print_keys(metrics, limit);
}

void print_fields(const char* title, const std::vector<model::FieldDifference>& fields,
                  size_t limit) {
  if (fields.empty()) return;
  fmt::print("\n{}\n", title);
  for (size_t i = 0; i < std::min(limit, fields.size()); ++i)
    fmt::print("  {:<28} A {}, B {}\n", fields[i].path, shortened(fields[i].a),
               shortened(fields[i].b));
  print_more(fields.size(), limit);
}

void print_names(const char* title, const std::vector<std::string>& names, size_t limit) {
  if (names.empty()) return;
  fmt::print("\n{}\n", title);
  for (size_t i = 0; i < std::min(limit, names.size()); ++i) fmt::print("  {}\n", names[i]);
  print_more(names.size(), limit);
}

// Where the first tensor differs first.
void print_first(const TensorDifference& first) {
  if (!first.shape_a || !first.shape_b) {
    fmt::print("Tensors differ first in {}: only {} has it.\n", first.name,
               first.shape_a ? "A" : "B");
  } else if (!first.has_elements()) {
    fmt::print("Tensors differ first in {}: {}.\n", first.name,
               side_by_side(shape_of(first.shape_a), shape_of(first.shape_b)));
  } else {
    const auto& element = first.elements.first;
    fmt::print(
        "Tensors differ first in {} {} at {}: {}.\n", first.name, shape_of(first.shape_a),
        formats::shape_text(first.index_of(element)),
        side_by_side(number(element.a, first.compared_as), number(element.b, first.compared_as)));
  }
}

void print_worst(const std::vector<const TensorDifference*>& worst, size_t limit) {
  const size_t shown = std::min(limit, worst.size());
  size_t width = 6;
  for (size_t i = 0; i < shown; ++i) width = std::max(width, worst[i]->name.size());
  fmt::print("\n{:<{}} {:>12} {:>12} {:>10} {:>9}  {}\n", "tensor", width, "elements", "differ",
             "largest", "relative", "at: A, B");
  for (size_t i = 0; i < shown; ++i) {
    const TensorDifference& tensor = *worst[i];
    if (!tensor.has_elements()) {
      fmt::print("{:<{}} A {}, B {}\n", tensor.name, width, shape_of(tensor.shape_a),
                 shape_of(tensor.shape_b));
      continue;
    }
    int64_t elements = 1;
    for (const int64_t size : *tensor.shape_a) elements *= size;
    const auto& at = tensor.elements.worst;
    fmt::print("{:<{}} {:>12} {:>12} {:>10.3g} {:>9}  {}: {}, {}\n", tensor.name, width, elements,
               tensor.elements.differing, tensor.elements.largest, share(tensor.relative()),
               formats::shape_text(tensor.index_of(at)), number(at.a, tensor.compared_as),
               number(at.b, tensor.compared_as));
  }
  print_more(worst.size(), limit);
}

void print_models(const Comparison& found, size_t limit) {
  const convert::ModelComparison& models = *found.models;
  fmt::print("\n");
  for (const auto& [side, model] : {std::pair("A", &models.a), std::pair("B", &models.b)})
    fmt::print("{}  {} ({}): {}\n", side, model->kind, join(model->dtypes, ", "),
               model->path.string());
  print_fields("The models differ", models.spec, limit);
  print_fields("The training states differ", models.state, limit);
  print_names("Copies in A that are not what they repeat", models.a.differing_copies, limit);
  print_names("Copies in B that are not what they repeat", models.b.differing_copies, limit);
  print_names("Not part of the model A, not compared", models.a.unused, limit);
  print_names("Not part of the model B, not compared", models.b.unused, limit);
  const auto worst = worst_tensors(found);
  const size_t within = models.differences.size() - worst.size();
  fmt::print("\n");
  if (!worst.empty()) print_first(*models.first(found.tolerance));
  fmt::print("{} of {} are equal bit for bit", models.tensors - models.differences.size(),
             plural(static_cast<int64_t>(models.tensors), "tensor"));
  if (within > 0) fmt::print(", {} more within {:g}", within, found.tolerance);
  fmt::print(" ({} compared).\n", plural(models.elements, "element"));
  if (!worst.empty()) print_worst(worst, limit);
}

}  // namespace

std::vector<const TensorDifference*> worst_tensors(const Comparison& found) {
  std::vector<const TensorDifference*> worst;
  for (const TensorDifference& tensor : found.models->differences) {
    if (!tensor.within(found.tolerance)) worst.push_back(&tensor);
  }
  std::ranges::stable_sort(worst, std::ranges::greater{}, &TensorDifference::relative);
  return worst;
}

void print_comparison(const Comparison& found, size_t limit) {
  const std::string within =
      found.tolerance > 0 ? fmt::format(" within {:g}", found.tolerance) : std::string();
  fmt::print("{}{}: A = {}, B = {}\n", found.equal() ? "Equal" : "Different", within, found.a,
             found.b);
  if (found.settings) print_settings(*found.settings, limit);
  if (found.metrics) print_metrics(*found.metrics, found.tolerance, limit);
  if (found.models) print_models(found, limit);
  if (found.metrics && !found.models) fmt::print("\nThe runs have no checkpoint in common.\n");
}

}  // namespace qianli::app
