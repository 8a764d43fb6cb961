#include "qianli/convert/adapter/target_parameters.h"

#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <set>

#include "qianli/base/error.h"
#include "qianli/convert/adapter/tensors.h"
#include "qianli/formats/reject.h"
#include "qianli/model/stacked_experts.h"

namespace qianli::convert {
namespace {

using formats::TensorSpec;
using model::ForeignPiece;
using model::ParameterEntry;

constexpr const char* kDown = ".lora_A.weight";
constexpr const char* kUp = ".lora_B.weight";

[[noreturn]] void refuse(const std::string& source, const std::string& name,
                         const std::string& reason, const std::string& hint) {
  throw CheckpointError("convert",
                        fmt::format("{}: {}: {}", source, formats::shown_name(name), reason), hint);
}

// A tensor of all experts and the name that PEFT gives what wraps it.
struct Stacked {
  const ParameterEntry* weight = nullptr;
  std::string name;
  std::string wrapper;
  size_t axes = 0;
};

const std::vector<ForeignPiece>& stacked_pieces(const ParameterEntry& weight) {
  return is_stacked(weight) ? weight.hugging_face : weight.hugging_face_also;
}

std::string parent_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

// Those of the table of which `wanted` says so, in their order.
std::vector<Stacked> stacked_tensors(const Table& base,
                                     const std::function<bool(const std::string&)>& wanted) {
  std::vector<Stacked> found;
  for (const ParameterEntry& entry : base) {
    if (!entry.expert || entry.shape.size() != 3) continue;
    for (const ForeignPiece& piece : stacked_pieces(entry)) {
      if (piece.first_row >= entry.shape[1]) break;  // of other experts
      const bool again = !found.empty() && found.back().name == piece.name;
      if (!again && wanted(piece.name))
        found.push_back({&entry, piece.name, parent_of(piece.name), piece.shape.size()});
    }
  }
  std::map<std::string, std::string> next;  // by module: the name of the wrapper before
  for (auto stacked = found.rbegin(); stacked != found.rend(); ++stacked) {
    std::string& wrapper = next.try_emplace(stacked->wrapper, stacked->wrapper).first->second;
    stacked->wrapper = wrapper;
    wrapper += ".base_layer";
  }
  return found;
}

bool is_end_of(const std::string& end, const std::string& name) {
  return name == end || name.ends_with("." + end);
}

// Rows of the foreign B that are those of a module's own.
using Rows = std::shared_ptr<const std::vector<int64_t>>;

// Where a tensor comes from.
struct Place {
  enum Kind { kWhole, kDownOfExpert, kUpOfExpert } kind = kWhole;
  const TensorSpec* tensor = nullptr;
  int64_t expert = 0, experts = 1, rank = 0;
  Rows rows;
};

class ApartSource : public formats::TensorSource {
 public:
  ApartSource(std::shared_ptr<const TensorSource> folder, const AdapterConfig& config,
              const Table& base)
      : TensorSource(folder->source()), folder_(std::move(folder)) {
    std::set<std::string> used, taken;
    const auto tensors = stacked_tensors(base, [&](const std::string& name) {
      const auto& targets = config.target_parameters();
      const auto target = std::ranges::find_if(
          targets, [&](const std::string& end) { return is_end_of(end, name); });
      if (target != targets.end()) used.insert(*target);
      return target != targets.end();
    });
    for (const std::string& target : config.target_parameters()) {
      if (!used.contains(target))
        refuse(source(), target, "expected a tensor of all experts, the model has none of the name",
               "merge this adapter with PEFT");
    }
    for (const Stacked& stacked : tensors) {
      for (const char* matrix : {kDown, kUp}) taken.insert(foreign_name(stacked, matrix));
    }
    for (const TensorSpec& tensor : folder_->tensors()) {
      if (!taken.contains(tensor.name)) add_place(tensor.name, tensor.shape, {.tensor = &tensor});
    }
    for (const Stacked& stacked : tensors) take_apart(stacked, config);
  }

 private:
  static std::string foreign_name(const Stacked& stacked, const char* matrix) {
    return std::string(kAdapterPrefix) + stacked.wrapper + matrix;
  }

  void add_place(const std::string& name, std::vector<int64_t> shape, Place place) {
    add({name, place.tensor->dtype, std::move(shape)});
    places_.push_back(std::move(place));
  }

  const TensorSpec& matrix_of(const Stacked& stacked, const char* matrix) const {
    const TensorSpec* tensor = folder_->find(foreign_name(stacked, matrix));
    if (!tensor)
      refuse(source(), foreign_name(stacked, matrix), "expected by target_parameters, found none",
             "check that the adapter is of this model");
    if (tensor->shape.size() != 2)
      refuse(source(), tensor->name,
             fmt::format("expected a matrix, got {}", formats::shape_text(tensor->shape)), "");
    return *tensor;
  }

  void take_apart(const Stacked& stacked, const AdapterConfig& config) {
    const ParameterEntry& weight = *stacked.weight;
    const int64_t experts = weight.shape[0], columns = weight.shape[2];
    if (stacked.axes != 3)
      refuse(source(), stacked.name,
             "expected experts along an axis of their own, the model has them in one matrix",
             "merge this adapter with PEFT");
    const TensorSpec& down = matrix_of(stacked, kDown);
    const TensorSpec& up = matrix_of(stacked, kUp);
    const auto modules = modules_of(stacked);
    int64_t rows = 0;
    for (const auto& [piece, own] : modules) rows += static_cast<int64_t>(own->size());
    const int64_t rank = config.rank(stacked.name);
    const std::vector<int64_t> down_shape{experts * rank, columns}, up_shape{rows, rank * experts};
    for (const auto& [tensor, shape] : {std::pair{&down, down_shape}, std::pair{&up, up_shape}}) {
      if (tensor->shape != shape)
        refuse(source(), tensor->name,
               fmt::format("expected shape {}, got {}", formats::shape_text(shape),
                           formats::shape_text(tensor->shape)),
               "check that the adapter is of this model");
    }
    for (int64_t e = 0; e < experts; ++e) {
      for (const auto& [first_module, own] : modules) {
        const std::string name = std::string(kAdapterPrefix) + model::of_expert(first_module, e);
        add_place(name + kDown, {rank, columns},
                  {Place::kDownOfExpert, &down, e, experts, rank, nullptr});
        add_place(name + kUp, {static_cast<int64_t>(own->size()), rank},
                  {Place::kUpOfExpert, &up, e, experts, rank, own});
      }
    }
  }

  // The first expert's modules that the tensor holds, with the rows that are theirs.
  static std::vector<std::pair<std::string, Rows>> modules_of(const Stacked& stacked) {
    const ParameterEntry& weight = *stacked.weight;
    const std::string module = model::expert_module(stacked.name, 0);
    std::vector<int64_t> foreign(static_cast<size_t>(weight.shape[1]), -1);  // by our row
    for (const ForeignPiece& piece : model::pieces_apart(weight, stacked_pieces(weight))) {
      if (piece.first_row >= weight.shape[1]) break;
      if (parent_of(piece.name) != module) continue;
      for (int64_t r = 0; r < piece.rows; ++r)
        foreign[static_cast<size_t>(piece.first_row + r)] = piece.foreign_row_of(r);
    }
    std::map<std::string, std::vector<int64_t>> rows;
    std::vector<std::string> order;
    for (const ForeignPiece& piece : model::module_pieces(weight)) {
      if (piece.first_row >= weight.shape[1]) break;
      const std::string own = parent_of(piece.name);
      if (foreign[static_cast<size_t>(piece.first_row)] < 0) continue;  // of another tensor
      auto [at, fresh] = rows.try_emplace(own, static_cast<size_t>(piece.slice_rows()), 0);
      if (fresh) order.push_back(own);
      for (int64_t r = 0; r < piece.rows; ++r)
        at->second[static_cast<size_t>(piece.foreign_row_of(r))] =
            foreign[static_cast<size_t>(piece.first_row + r)];
    }
    std::vector<std::pair<std::string, Rows>> modules;
    for (const std::string& own : order)
      modules.emplace_back(own, std::make_shared<std::vector<int64_t>>(std::move(rows[own])));
    return modules;
  }

  std::string describe(size_t index) const override {
    return folder_->stored_as(*places_[index].tensor);
  }
  formats::Dtype natural(size_t index) const override {
    return folder_->natural_dtype(*places_[index].tensor);
  }
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    const Place& place = places_[index];
    return place.kind == Place::kWhole ? folder_->view(*place.tensor) : std::nullopt;
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const Place& place = places_[index];
    if (place.kind == Place::kWhole) return folder_->read_rows(*place.tensor, first, count, out);
    if (place.kind == Place::kDownOfExpert) {
      return folder_->read_rows(*place.tensor, place.expert * place.rank + first, count, out);
    }
    const auto view = folder_->view(*place.tensor);
    const size_t bytes = formats::row_bytes(*place.tensor);
    const size_t element = bytes / static_cast<size_t>(place.rank * place.experts);
    std::vector<std::byte> read(view ? 0 : bytes);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = (*place.rows)[static_cast<size_t>(first + i)];
      if (!view) folder_->read_rows(*place.tensor, row, 1, read);
      const std::byte* from = view ? view->data() + static_cast<size_t>(row) * bytes : read.data();
      for (int64_t k = 0; k < place.rank; ++k) {
        std::memcpy(out.data() + static_cast<size_t>(i * place.rank + k) * element,
                    from + static_cast<size_t>(k * place.experts + place.expert) * element,
                    element);
      }
    }
  }

  std::shared_ptr<const TensorSource> folder_;
  std::vector<Place> places_;
};

// [E r, in] of those of all experts.
ForeignTensor stack_down(const std::vector<const ForeignTensor*>& experts) {
  ForeignTensor all = *experts.front();
  const int64_t rank = all.shape[0];
  all.shape[0] *= static_cast<int64_t>(experts.size());
  all.parts.clear();
  for (size_t e = 0; e < experts.size(); ++e) {
    for (Part part : experts[e]->parts) {
      part.foreign_rows = all.shape[0];
      part.foreign_row += static_cast<int64_t>(e) * rank;
      all.parts.push_back(part);
    }
  }
  return all;
}

// [out, r E] of those of all experts: each of their columns stands alone.
ForeignTensor stack_up(const std::vector<const ForeignTensor*>& experts) {
  ForeignTensor all = *experts.front();
  const auto count = static_cast<int64_t>(experts.size());
  const int64_t rank = all.shape[1];
  all.shape[1] *= count;
  all.parts.clear();
  for (int64_t e = 0; e < count; ++e) {
    for (const Part& whole : experts[static_cast<size_t>(e)]->parts) {
      for (int64_t k = 0; k < rank; ++k) {
        Part part = whole;
        part.first_column = k;
        part.columns = 1;
        part.foreign_columns = all.shape[1];
        part.foreign_column = k * count + e;
        all.parts.push_back(part);
      }
    }
  }
  return all;
}

}  // namespace

std::shared_ptr<const formats::TensorSource> experts_apart(
    std::shared_ptr<const formats::TensorSource> folder, const AdapterConfig& config,
    const Table& base) {
  if (config.target_parameters().empty()) return folder;
  return std::make_shared<ApartSource>(std::move(folder), config, base);
}

std::vector<ForeignTensor> experts_stacked(std::vector<ForeignTensor> tensors, const Table& base) {
  std::map<std::string, const ForeignTensor*> by_name;
  for (const ForeignTensor& tensor : tensors) by_name[tensor.name] = &tensor;
  const auto of = [&](const std::string& tensor, int64_t expert, const char* matrix) {
    const auto found =
        by_name.find(std::string(kAdapterPrefix) + model::expert_module(tensor, expert) + matrix);
    return found == by_name.end() ? nullptr : found->second;
  };
  std::set<std::string> taken;
  std::vector<ForeignTensor> stacked;
  for (const Stacked& all : stacked_tensors(
           base, [&](const std::string& name) { return of(name, 0, kDown) != nullptr; })) {
    if (all.axes != 3)
      refuse("adapter", all.name,
             "expected experts along an axis of their own: PEFT would give them all one A",
             "use the checkpoint with --adapter, or write the merged model: --to hf");
    for (const char* matrix : {kDown, kUp}) {
      std::vector<const ForeignTensor*> experts;
      for (int64_t e = 0; e < all.weight->shape[0]; ++e) {
        experts.push_back(of(all.name, e, matrix));
        taken.insert(experts.back()->name);
      }
      stacked.push_back(matrix == kDown ? stack_down(experts) : stack_up(experts));
      stacked.back().name = std::string(kAdapterPrefix) + all.wrapper + matrix;
    }
  }
  std::erase_if(tensors, [&](const ForeignTensor& tensor) { return taken.contains(tensor.name); });
  std::ranges::move(stacked, std::back_inserter(tensors));
  return tensors;
}

std::vector<std::string> target_parameters(
    const Table& base, const std::function<bool(const std::string& module)>& is_adapted) {
  // Behind the first part that is a number.
  const auto end_of = [](const std::string& name) {
    for (size_t at = 0; at < name.size();) {
      const size_t end = std::min(name.find('.', at), name.size());
      if (std::all_of(name.begin() + static_cast<std::ptrdiff_t>(at),
                      name.begin() + static_cast<std::ptrdiff_t>(end),
                      [](unsigned char c) { return std::isdigit(c); }))
        return name.substr(std::min(end + 1, name.size()));
      at = end + 1;
    }
    return name;
  };
  std::set<std::string> names, ends, others;
  for (const ParameterEntry& entry : base) {
    if (!is_stacked(entry)) continue;
    for (const ForeignPiece& piece : entry.hugging_face) {
      if (piece.first_row >= entry.shape[1]) break;
      const bool adapted = is_adapted(model::expert_module(piece.name, 0));
      if (adapted) names.insert(piece.name);
      (adapted ? ends : others).insert(end_of(piece.name));
    }
  }
  const bool everywhere =
      std::ranges::none_of(ends, [&](const std::string& end) { return others.contains(end); });
  const auto& chosen = everywhere ? ends : names;
  return {chosen.begin(), chosen.end()};
}

}  // namespace qianli::convert
