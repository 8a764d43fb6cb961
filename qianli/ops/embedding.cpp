#include "qianli/ops/embedding.h"

#include <ATen/ops/empty.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/custom_function.h>

#include "qianli/base/error.h"
#include "qianli/ops/block_weight.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/reference_function.h"

namespace qianli::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_ids(const at::Tensor& ids, int64_t vocabulary) {
  // On an accelerator a look at the values would wait for it; data loading has checked them on the
  // host.
  if (!ids.is_cpu()) return;
  const int64_t* id = ids.data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) {
    if (id[i] >= 0 && id[i] < vocabulary) continue;
    throw DataError(
        "embedding",
        fmt::format("expected token ids below the vocabulary size {}, got {} at position {}",
                    vocabulary, id[i], i),
        "the data was made with another tokenizer than the model's");
  }
}

at::Tensor rows_of(const at::Tensor& ids, const at::Tensor& table) {
  at::Tensor y = at::empty({ids.size(0), table.size(1)}, table.options());
  kernels_for(Op::kEmbedding, table)
      ->embedding_forward({.dtype = kernel_dtype(table),
                           .tokens = ids.size(0),
                           .width = table.size(1),
                           .ids = ids.data_ptr<int64_t>(),
                           .table = table.data_ptr(),
                           .y = y.data_ptr()},
                          stream_of(table));
  return y;
}

class EmbeddingFunction : public torch::autograd::Function<EmbeddingFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor&, const at::Tensor& ids,
                            Parameter* table) {
    context->saved_data["ids"] = ids;
    context->saved_data["table"] = reinterpret_cast<int64_t>(table);
    return rows_of(ids, table->value());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto* table = reinterpret_cast<Parameter*>(context->saved_data["table"].toInt());
    const at::Tensor ids = context->saved_data["ids"].toTensor();
    const at::Tensor grad_y = grads[0].contiguous();
    kernels_for(Op::kEmbedding, grad_y)
        ->embedding_backward({.dtype = kernel_dtype(grad_y),
                              .tokens = ids.size(0),
                              .width = grad_y.size(1),
                              .vocabulary = table->value().size(0),
                              .ids = ids.data_ptr<int64_t>(),
                              .grad_y = grad_y.data_ptr(),
                              .grad_table = table->grad_to_add().data_ptr<float>()},
                             stream_of(grad_y));
    return {{}, {}, {}};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& ids, Parameter& table) {
  check_ids(ids, table.value().size(0));
  if (const BlockWeight* blocks = block_weight(table.value()))
    return blocks->rows(ids.contiguous(), table.value().scalar_type());
  if (!kernels_for(Op::kEmbedding, table.value())) {
    return apply_reference(
        [ids](const Tensors&, const Tensors& weights) {
          return Tensors{reference::embedding(ids, weights[0])};
        },
        {}, {&table})[0];
  }
  if (!at::GradMode::is_enabled()) return rows_of(ids.contiguous(), table.value());
  const at::Tensor anchor = table.trainable() ? gradient_anchor() : gradient_anchor().detach();
  return EmbeddingFunction::apply(anchor, ids.contiguous(), &table);
}

namespace reference {
at::Tensor embedding(const at::Tensor& ids, const at::Tensor& table) {
  return table.index_select(0, ids);
}
}  // namespace reference

}  // namespace qianli::ops
