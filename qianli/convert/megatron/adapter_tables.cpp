#include "qianli/convert/megatron/adapter_tables.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "qianli/base/error.h"
#include "qianli/convert/adapter/tensors.h"

namespace qianli::convert {
namespace {

constexpr std::string_view kWeight = ".weight";

// The rows [begin, end) of a parameter that a layer holds, and the B of these.
struct Rows {
  int64_t begin = 0, end = 0;
  size_t b = 0;  // in the adapter's table
};

// A module of Hugging Face's, by its weight.
struct Module {
  size_t layer = 0;
  size_t a = 0;
  int64_t rank = 0, rows = 0, columns = 0, covered_rows = 0;
  bool transposed = false;
  std::vector<Part> b;
};

class Collector {
 public:
  Collector(const Table& base, std::string what) : base_(base), what_(std::move(what)) {}

  void add(const AdaptedLayer& layer) {
    std::map<size_t, Rows> rows = rows_of_layer(layer);
    const int64_t columns = matrix_columns(base_[rows.begin()->first]);
    const size_t a = add_entry(layer.name + ".lora_A", {layer.rank, columns});
    for (auto& [parameter, held] : rows) {
      held.b = add_entry(fmt::format("{}.lora_B of {}", layer.name, base_[parameter].name),
                         {held.end - held.begin, layer.rank});
    }
    add_stored(layer, a, rows);
    for (const auto& [parameter, held] : rows) add_modules(layer, a, parameter, held);
    ++layers_;
  }

  AdapterTables take() {
    AdapterTables tables{.tensors = tensors(),
                         .target_modules = target_modules(),
                         .any_transposed = any_transposed()};
    tables.table = std::move(table_);
    tables.stored = std::move(stored_);
    return tables;
  }

 private:
  // PEFT's tensors.
  std::vector<ForeignTensor> tensors() const {
    std::vector<ForeignTensor> tensors;
    std::set<size_t> written;
    for (const std::string& name : order_) {
      const Module& module = modules_.at(name);
      if (module.covered_rows != module.rows)
        refuse(fmt::format("expected all rows of {} from one layer", name));
      const std::string prefix =
          std::string(kAdapterPrefix) + name.substr(0, name.size() - kWeight.size());
      ForeignTensor a{.name = prefix + ".lora_A.weight",
                      .shape = {module.rank, module.columns},
                      .parts = {whole(module.a, module.rank, module.columns)},
                      .copy = !written.insert(module.a).second};
      tensors.push_back(std::move(a));
      tensors.push_back({.name = prefix + ".lora_B.weight",
                         .shape = {module.rows, module.rank},
                         .parts = module.b});
    }
    return tensors;
  }

  // Last parts of names, where all modules of the base that end so have an adapter; else names.
  std::vector<std::string> target_modules() const {
    std::set<std::string> all, partly;
    for (const model::ParameterEntry& entry : base_) {
      for (const model::ForeignPiece& piece : entry.hugging_face) {
        if (piece.name.ends_with(kWeight) && !modules_.contains(piece.name))
          partly.insert(last_part(piece.name));
      }
    }
    for (const std::string& name : order_) {
      const std::string last = last_part(name);
      all.insert(partly.contains(last) ? name.substr(0, name.size() - kWeight.size()) : last);
    }
    return {all.begin(), all.end()};
  }
  bool any_transposed() const {
    return std::ranges::any_of(modules_, [](const auto& m) { return m.second.transposed; });
  }

  [[noreturn]] void refuse(const std::string& problem) const {
    throw CheckpointError("convert", fmt::format("{}: {}", what_, problem));
  }

  static std::string last_part(const std::string& weight) {
    const std::string module = weight.substr(0, weight.size() - kWeight.size());
    return module.substr(module.rfind('.') + 1);
  }

  static Part whole(size_t parameter, int64_t rows, int64_t columns) {
    return {.parameter = parameter,
            .rows = rows,
            .columns = columns,
            .foreign_rows = rows,
            .foreign_columns = columns};
  }

  size_t add_entry(std::string name, std::vector<int64_t> shape) {
    table_.emplace_back();
    table_.back().name = std::move(name);
    table_.back().shape = std::move(shape);
    return table_.size() - 1;
  }

  std::map<size_t, Rows> rows_of_layer(const AdaptedLayer& layer) const {
    std::map<size_t, Rows> rows;
    std::map<size_t, int64_t> held;
    std::set<std::pair<size_t, int64_t>> seen;
    for (const ForeignTensor* weight : layer.weights) {
      for (const Part& part : weight->parts) {
        const auto [place, added] =
            rows.try_emplace(part.parameter, Rows{part.first_row, part.first_row + part.rows, 0});
        place->second.begin = std::min(place->second.begin, part.first_row);
        place->second.end = std::max(place->second.end, part.first_row + part.rows);
        if (seen.insert({part.parameter, part.first_row}).second) held[part.parameter] += part.rows;
      }
    }
    for (const auto& [parameter, range] : rows) {
      if (held[parameter] == range.end - range.begin) continue;
      refuse(
          fmt::format("{} holds every other rows of {} (--mla-mm-split): with adapters of their "
                      "own these have none of the same rank in PEFT's form",
                      layer.name, base_[parameter].name));
    }
    return rows;
  }

  // Where A and B lie on the ranks: as the base's weight does, B its rows and A its columns.
  void add_stored(const AdaptedLayer& layer, size_t a, const std::map<size_t, Rows>& rows) {
    std::set<int64_t> columns;
    std::set<std::pair<size_t, int64_t>> firsts;
    for (const ForeignTensor* weight : layer.weights) {
      const Part& any = weight->parts.front();
      Part of_a = whole(a, layer.rank, weight->shape[1]);
      of_a.first_column = any.first_column;
      of_a.columns = any.columns;
      of_a.foreign_column = any.foreign_column;
      stored_.push_back({.name = layer.name + layer.a,
                         .shape = {layer.rank, weight->shape[1]},
                         .file = weight->file,
                         .parts = {of_a},
                         .copy = !columns.insert(any.first_column).second});
      ForeignTensor b{.name = layer.name + layer.b,
                      .shape = {weight->shape[0], layer.rank},
                      .file = weight->file,
                      .parts = {},
                      .copy = true};
      for (Part part : weight->parts) {
        const Rows& held = rows.at(part.parameter);
        if (firsts.insert({part.parameter, part.first_row}).second) b.copy = false;
        part.parameter = held.b;
        part.first_row -= held.begin;
        part.first_column = part.foreign_column = 0;
        part.columns = part.foreign_columns = layer.rank;
        b.parts.push_back(part);
      }
      stored_.push_back(std::move(b));
    }
  }

  // The modules of Hugging Face's that the rows are of.
  void add_modules(const AdaptedLayer& layer, size_t a, size_t parameter, const Rows& held) {
    for (const model::ForeignPiece& piece : base_[parameter].hugging_face) {
      const int64_t end = piece.first_row + piece.rows;
      if (piece.first_row >= held.end || end <= held.begin) continue;
      if (!piece.name.ends_with(kWeight) || piece.slices != 1) {
        refuse(fmt::format("{}: {} is no linear layer of its own, it has no adapter in PEFT's form",
                           layer.name, piece.name));
      }
      if (piece.first_row < held.begin || end > held.end)
        refuse(fmt::format("{} holds a part of {}", layer.name, piece.name));
      const auto [place, added] = modules_.try_emplace(piece.name);
      Module& module = place->second;
      if (added) {
        order_.push_back(piece.name);
        module = {.layer = layers_,
                  .a = a,
                  .rank = layer.rank,
                  .rows = piece.slice_rows(),
                  .columns = piece.own_columns(),
                  .transposed = piece.transposed,
                  .b = {}};
      }
      if (module.layer != layers_) {
        refuse(
            fmt::format("{} is put together of layers with adapters of their own: the rank of "
                        "its adapter would be the sum of theirs",
                        piece.name));
      }
      module.covered_rows += piece.rows;
      module.b.push_back({.parameter = held.b,
                          .first_row = piece.first_row - held.begin,
                          .rows = piece.rows,
                          .columns = layer.rank,
                          .foreign_rows = module.rows,
                          .foreign_columns = layer.rank,
                          .foreign_row = piece.foreign_row,
                          .block = piece.block,
                          .stride = piece.stride});
    }
  }

  const Table& base_;
  std::string what_;
  Table table_;
  std::vector<ForeignTensor> stored_;
  std::map<std::string, Module> modules_;  // by the name of their weight
  std::vector<std::string> order_;
  size_t layers_ = 0;
};

}  // namespace

AdapterTables adapter_tables(const Table& base, const std::vector<AdaptedLayer>& layers,
                             const std::string& what) {
  Collector collector(base, what);
  for (const AdaptedLayer& layer : layers) collector.add(layer);
  return collector.take();
}

}  // namespace qianli::convert
