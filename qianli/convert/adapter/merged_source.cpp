#include "qianli/convert/adapter/merged_source.h"

#include <fmt/core.h>

#include <cmath>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "qianli/base/error.h"
#include "qianli/convert/adapter/low_rank.h"
#include "qianli/formats/number_formats.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {
namespace {

using formats::Dtype;
using formats::TensorSpec;

constexpr size_t kKeptFactors = 4;

std::vector<float> transposed(const std::vector<float>& values, int64_t rows, int64_t columns) {
  std::vector<float> out(values.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      out[static_cast<size_t>(c * rows + r)] = values[static_cast<size_t>(r * columns + c)];
    }
  }
  return out;
}

// What is added to a tensor of the base.
struct Addition {
  AdapterModule module;
  float scale = 1;
  bool transposed = false;  // rows of the tensor are inputs
};

// An addition as row after row needs it: row i of the tensor gets scale * left[i] right.
struct Factors {
  size_t rank;
  std::vector<float> left;     // [rows, rank]
  std::vector<float> right;    // [rank, columns]
  std::vector<float> factors;  // DoRA: one per output; per row, or per column where transposed
};

class MergedSource : public formats::TensorSource {
 public:
  MergedSource(std::shared_ptr<const TensorSource> base, const Adapter& adapter,
               const BaseNames& names)
      : TensorSource(base->source()),
        base_(std::move(base)),
        config_(adapter.config),
        adapter_(adapter.tensors) {
    for (const auto& [name, module] : adapter_.modules) place(name, module, names);
    for (const auto& [name, tensor] : adapter_.whole) replace(name, *tensor, names);
    for (const TensorSpec& tensor : base_->tensors()) {
      add(additions_.contains(&tensor) ? TensorSpec{tensor.name, Dtype::kF32, tensor.shape}
          : replaced_.contains(&tensor)
              ? TensorSpec{tensor.name, replaced_.at(&tensor)->dtype, tensor.shape}
              : tensor);
    }
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& reason) const {
    throw CheckpointError(
        "convert",
        fmt::format("{}: {}: {}", adapter_.source->source(), formats::shown_name(name), reason),
        "check that the adapter is of this model");
  }

  const TensorSpec& find(const std::string& name, const BaseNames& names) const {
    if (const TensorSpec* found = names.find(name)) return *found;
    refuse(name, fmt::format("expected in the base model {}, found none", source()));
  }

  void place(const std::string& name, const AdapterModule& module, const BaseNames& names) {
    const std::string weight = name + ".weight";
    const TensorSpec& tensor = find(weight, names);
    const bool transposed = module.embedding || names.is_transposed(weight);
    std::vector<int64_t> shape{module.b->shape[0], module.a->shape[1]};
    if (transposed) std::swap(shape[0], shape[1]);
    if (tensor.shape != shape) {
      refuse(weight, fmt::format("expected shape {} as the adapter's, got {}",
                                 formats::shape_text(shape), formats::shape_text(tensor.shape)));
    }
    if (config_.rank(name) != module.a->shape[0]) {
      refuse(name, fmt::format("expected rank {} as adapter_config.json says, got {}",
                               config_.rank(name), module.a->shape[0]));
    }
    if (config_.use_dora() != (module.magnitude != nullptr)) {
      refuse(name, config_.use_dora() ? "expected lora_magnitude_vector (use_dora), found none"
                                      : "expected use_dora beside lora_magnitude_vector");
    }
    const auto scale = static_cast<float>(config_.scale(name));
    additions_.emplace(&tensor, Addition{module, scale, transposed});
  }

  void replace(const std::string& name, const TensorSpec& tensor, const BaseNames& names) {
    const TensorSpec& base = find(name, names);
    if (base.shape != tensor.shape) {
      refuse(name, fmt::format("expected shape {} as the base's, got {}",
                               formats::shape_text(base.shape), formats::shape_text(tensor.shape)));
    }
    replaced_.emplace(&base, &tensor);
  }

  std::string describe(size_t index) const override {
    const TensorSpec& base = base_->tensors()[index];
    return base_->stored_as(base) + (additions_.contains(&base) ? " and an adapter" : "");
  }
  Dtype natural(size_t index) const override {
    const TensorSpec& base = base_->tensors()[index];
    return replaced_.contains(&base) ? replaced_.at(&base)->dtype : base_->natural_dtype(base);
  }

  std::optional<std::span<const std::byte>> bytes_in_place(size_t index) const override {
    const TensorSpec& base = base_->tensors()[index];
    if (additions_.contains(&base)) return std::nullopt;
    const auto whole = replaced_.find(&base);
    return whole == replaced_.end() ? base_->view(base) : adapter_.source->view(*whole->second);
  }

  void copy_rows(size_t index, int64_t first, int64_t count,
                 std::span<std::byte> out) const override {
    const TensorSpec& base = base_->tensors()[index];
    const auto addition = additions_.find(&base);
    if (addition == additions_.end()) {
      const auto whole = replaced_.find(&base);
      if (whole == replaced_.end()) return base_->read_rows(base, first, count, out);
      return adapter_.source->read_rows(*whole->second, first, count, out);
    }
    std::vector<float> rows = base_rows(base, first, count);
    const auto factors = factors_of(base, addition->second);
    merge(addition->second, *factors, first, count, rows);
    std::memcpy(out.data(), rows.data(), out.size());
  }

  std::vector<float> base_rows(const TensorSpec& base, int64_t first, int64_t count) const {
    std::vector<std::byte> bytes(formats::row_bytes(base) * static_cast<uint64_t>(count));
    base_->read_rows(base, first, count, bytes);
    std::vector<float> rows(static_cast<size_t>(base.num_elements() / base.shape[0] * count));
    formats::to_float32(base.dtype, bytes, rows);
    return rows;
  }

  static void add_product(const Addition& addition, const Factors& factors, int64_t first,
                          int64_t count, std::span<float> rows) {
    const size_t columns = rows.size() / static_cast<size_t>(count);
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const size_t row = static_cast<size_t>(first) + i;
      add_low_rank(std::span(factors.left).subspan(row * factors.rank, factors.rank), factors.right,
                   addition.scale, rows.subspan(i * columns, columns));
    }
  }

  static void merge(const Addition& addition, const Factors& factors, int64_t first, int64_t count,
                    std::span<float> rows) {
    add_product(addition, factors, first, count, rows);
    if (factors.factors.empty()) return;
    const size_t columns = rows.size() / static_cast<size_t>(count);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t row = static_cast<size_t>(first) + i / columns;
      rows[i] *= factors.factors[addition.transposed ? i % columns : row];
    }
  }

  std::shared_ptr<const Factors> factors_of(const TensorSpec& base,
                                            const Addition& addition) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [tensor, factors] : recent_) {
      if (tensor == &base) return factors;
    }
    auto factors = make_factors(base, addition);
    if (recent_.size() == kKeptFactors) recent_.erase(recent_.begin());
    recent_.emplace_back(&base, factors);
    return factors;
  }

  std::shared_ptr<const Factors> make_factors(const TensorSpec& base,
                                              const Addition& addition) const {
    const AdapterModule& module = addition.module;
    const int64_t rank = module.a->shape[0];
    auto factors = std::make_shared<Factors>();
    factors->rank = static_cast<size_t>(rank);
    factors->left = float_values(*adapter_.source, addition.transposed ? *module.a : *module.b);
    factors->right = float_values(*adapter_.source, addition.transposed ? *module.b : *module.a);
    if (addition.transposed) {
      factors->left = transposed(factors->left, rank, base.shape[0]);
      factors->right = transposed(factors->right, base.shape[1], rank);
    }
    if (module.magnitude) {
      const auto magnitude = float_values(*adapter_.source, *module.magnitude);
      auto norms = output_norms(base, addition, *factors);
      for (size_t o = 0; o < norms.size(); ++o) {
        norms[o] = magnitude[o] / norms[o];
      }
      factors->factors = std::move(norms);
    }
    return factors;
  }

  // |W + scale * B A| of each output.
  std::vector<float> output_norms(const TensorSpec& base, const Addition& addition,
                                  const Factors& factors) const {
    constexpr int64_t kRows = 64;
    const auto columns = static_cast<size_t>(base.shape[1]);
    std::vector<double> squares(static_cast<size_t>(base.shape[addition.transposed ? 1 : 0]));
    for (int64_t first = 0; first < base.shape[0]; first += kRows) {
      const int64_t count = std::min(kRows, base.shape[0] - first);
      std::vector<float> rows = base_rows(base, first, count);
      add_product(addition, factors, first, count, rows);
      for (size_t i = 0; i < rows.size(); ++i) {
        const size_t row = static_cast<size_t>(first) + i / columns;
        squares[addition.transposed ? i % columns : row] += double{rows[i]} * double{rows[i]};
      }
    }
    std::vector<float> norms(squares.size());
    for (size_t i = 0; i < norms.size(); ++i) norms[i] = static_cast<float>(std::sqrt(squares[i]));
    return norms;
  }

  std::shared_ptr<const TensorSource> base_;
  AdapterConfig config_;
  AdapterTensors adapter_;
  std::unordered_map<const TensorSpec*, Addition> additions_;          // by the base's tensor
  std::unordered_map<const TensorSpec*, const TensorSpec*> replaced_;  // by an adapter's
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<const TensorSpec*, std::shared_ptr<const Factors>>> recent_;
};

}  // namespace

std::shared_ptr<const formats::TensorSource> merge_adapter(
    std::shared_ptr<const formats::TensorSource> base, const Adapter& adapter,
    const BaseNames& names) {
  return std::make_shared<MergedSource>(std::move(base), adapter, names);
}

}  // namespace qianli::convert
