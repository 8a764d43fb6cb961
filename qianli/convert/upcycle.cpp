#include "qianli/convert/upcycle.h"

#include <fmt/core.h>

#include <cstring>

#include "qianli/base/error.h"
#include "qianli/convert/assembled_source.h"
#include "qianli/model/fitting_family.h"

namespace qianli::convert {
namespace {

using formats::Dtype;
using formats::TensorSpec;
using model::ParameterEntry;

constexpr std::string_view kExperts = ".experts.";
constexpr std::string_view kRouter = ".router.weight";

model::ModelSpec mixture_of(const model::ModelSpec& dense, const Upcycling& upcycling) {
  if (dense.moe) throw ConfigError("convert", "expected a dense model to upcycle, got experts");
  if (upcycling.top_k < 2) {
    throw ConfigError("convert",
                      fmt::format("expected --upcycle-top-k of at least 2, got {}: the weight of a "
                                  "single expert is always 1, and its router learns nothing",
                                  upcycling.top_k));
  }
  model::ModelSpec spec = dense;
  spec.moe = model::MixtureOfExperts{.num_experts = upcycling.experts,
                                     .top_k = upcycling.top_k,
                                     .ffn_hidden_size = dense.ffn_hidden_size,
                                     .score = model::RouterScore::kTopKSoftmax,
                                     .expert_bias = dense.mlp_bias};
  spec.validate();
  if (auto member = model::as_family_member(spec)) return *std::move(member);
  throw ConfigError("convert",
                    fmt::format("expected a dense model whose mixture has a family, got {}: no "
                                "config.json has words for it with experts",
                                dense.family));
}

// The tensors of the dense model, those of its MLPs once for each expert, and the routers' numbers.
class UpcycledSource : public formats::TensorSource {
 public:
  UpcycledSource(std::shared_ptr<const TensorSource> dense, const Table& table, uint64_t seed)
      : TensorSource(dense->source()), dense_(std::move(dense)), seed_(seed) {
    for (size_t p = 0; p < table.size(); ++p) {
      const ParameterEntry& entry = table[p];
      if (entry.name.ends_with(kRouter)) {
        add_whole(p, entry, Dtype::kF32, {.router = &entry});
      } else if (entry.expert) {
        add_copies(p, entry);
      } else {
        const TensorSpec& own = dense_->at(entry.name);
        add_whole(p, entry, own.dtype, {.dense = &own});
      }
    }
  }

  std::vector<ForeignTensor> take_places() { return std::move(places_); }

 private:
  struct Origin {
    const TensorSpec* dense = nullptr;
    const ParameterEntry* router = nullptr;  // of the table, which outlives the source
  };

  void add_whole(size_t parameter, const ParameterEntry& entry, Dtype dtype, Origin origin) {
    add({entry.name, dtype, entry.shape});
    origins_.push_back(origin);
    const int64_t rows = matrix_rows(entry), columns = matrix_columns(entry);
    places_.push_back({.name = entry.name,
                       .shape = entry.shape,
                       .parts = {{.parameter = parameter,
                                  .rows = rows,
                                  .columns = columns,
                                  .foreign_rows = rows,
                                  .foreign_columns = columns}}});
  }

  // entry: [experts, …] of a dense parameter […].
  void add_copies(size_t parameter, const ParameterEntry& entry) {
    const size_t at = entry.name.find(kExperts);
    const TensorSpec& own = dense_->at(
        fmt::format("{}.{}", entry.name.substr(0, at), entry.name.substr(at + kExperts.size())));
    const int64_t columns = matrix_columns(entry), rows = matrix_rows(entry) / entry.shape[0];
    for (int64_t e = 0; e < entry.shape[0]; ++e) {
      const std::string copy = fmt::format("{} of expert {}", entry.name, e);
      add({copy, own.dtype, own.shape});
      origins_.push_back({.dense = &own});
      places_.push_back({.name = copy,
                         .shape = own.shape,
                         .parts = {{.parameter = parameter,
                                    .first_row = e * rows,
                                    .rows = rows,
                                    .columns = columns,
                                    .foreign_rows = rows,
                                    .foreign_columns = columns}}});
    }
  }

  std::string describe(size_t index) const override {
    return origins_[index].router ? "random numbers" : dense_->stored_as(*origins_[index].dense);
  }
  // Routers are written in the type of the model.
  Dtype natural(size_t index) const override {
    const TensorSpec* own = origins_[index].dense;
    return dense_->natural_dtype(own ? *own : dense_->tensors().front());
  }
  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    if (origins_[index].router) return std::nullopt;
    return dense_->view(*origins_[index].dense);
  }
  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const auto [own, router] = origins_[index];
    if (own) return dense_->read_rows(*own, first, count, out);
    std::vector<float> values(out.size() / sizeof(float));
    model::initial_values(*router, seed_, first * router->shape[1], values);
    std::memcpy(out.data(), values.data(), out.size());
  }

  std::shared_ptr<const TensorSource> dense_;
  uint64_t seed_;
  std::vector<Origin> origins_;
  std::vector<ForeignTensor> places_;
};

}  // namespace

std::unique_ptr<ModelSource> upcycled(std::unique_ptr<ModelSource> dense,
                                      const Upcycling& upcycling) {
  auto mixture = std::make_unique<ModelSource>();
  mixture->base = std::move(dense);
  const ModelSource& own = *mixture->base;
  mixture->kind = own.kind;
  mixture->path = own.path;
  mixture->adapter = own.adapter;
  mixture->lora_alpha = own.lora_alpha;
  mixture->upcycling = upcycling;
  mixture->companions = own.companions;
  mixture->companion_files = own.companion_files;
  mixture->spec = mixture_of(own.spec, upcycling);
  mixture->table = model::parameter_table(mixture->spec);
  auto source = std::make_shared<UpcycledSource>(
      assembled_source(mixture->base, own_tensors(own.table), own.path.string()), mixture->table,
      upcycling.seed);
  auto places = source->take_places();
  mixture->reader = std::make_unique<ParameterReader>(
      mixture->table, std::move(places),
      std::vector<std::shared_ptr<const formats::TensorSource>>{std::move(source)},
      own.path.string());
  return mixture;
}

}  // namespace qianli::convert
