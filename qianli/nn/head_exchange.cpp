#include "qianli/nn/head_exchange.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "qianli/data/context_deal.h"

namespace qianli::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Tensors = std::vector<at::Tensor>;

struct Exchange : torch::CustomClassHolder {
  std::vector<HeadRanges> ranges;  // [tensor][rank]
  std::vector<int64_t> rows;       // [rank]
  dist::Group group;

  size_t ranks() const { return rows.size(); }
  size_t own() const { return static_cast<size_t>(group.rank()); }
  int64_t all_rows() const { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

  // Elements of one head of all tensors, for the rows of `row_rank` and the ranges of `head_rank`.
  int64_t elements(const std::vector<int64_t>& dims, size_t row_rank, size_t head_rank) const {
    int64_t per_row = 0;
    for (size_t t = 0; t < dims.size(); ++t) per_row += ranges[t][head_rank].count() * dims[t];
    return rows[row_rank] * per_row;
  }
  // Counts of elements by the other rank: those that have our rows and go there, and those of rows
  // from there for our heads.
  struct Counts {
    std::vector<int64_t> of_rows, of_heads;
  };
  Counts counts(const std::vector<int64_t>& dims) const {
    Counts counts;
    for (size_t r = 0; r < ranks(); ++r) {
      counts.of_rows.push_back(elements(dims, own(), r));
      counts.of_heads.push_back(elements(dims, r, own()));
    }
    return counts;
  }
};

std::vector<int64_t> dims_of(const Tensors& tensors) {
  std::vector<int64_t> dims;
  for (const auto& tensor : tensors) dims.push_back(tensor.size(2));
  return dims;
}

// Takes the next rows x heads x dim elements of a message.
class Reader {
 public:
  explicit Reader(at::Tensor message) : message_(std::move(message)) {}
  at::Tensor take(int64_t rows, int64_t heads, int64_t dim) {
    const at::Tensor part = message_.narrow(0, next_, rows * heads * dim).view({rows, heads, dim});
    next_ += rows * heads * dim;
    return part;
  }

 private:
  at::Tensor message_;
  int64_t next_ = 0;
};

Tensors gather_rows(const Tensors& tensors, const Exchange& exchange) {
  Tensors message;
  for (size_t r = 0; r < exchange.ranks(); ++r) {
    for (size_t t = 0; t < tensors.size(); ++t) {
      const HeadRange range = exchange.ranges[t][r];
      message.push_back(tensors[t].narrow(1, range.begin, range.count()).reshape({-1}));
    }
  }
  const auto dims = dims_of(tensors);
  const auto counts = exchange.counts(dims);
  Reader reader(exchange.group.all_to_all(at::cat(message), counts.of_rows, counts.of_heads));
  std::vector<Tensors> parts(tensors.size());
  for (size_t r = 0; r < exchange.ranks(); ++r) {
    for (size_t t = 0; t < tensors.size(); ++t) {
      const int64_t heads = exchange.ranges[t][exchange.own()].count();
      parts[t].push_back(reader.take(exchange.rows[r], heads, dims[t]));
    }
  }
  Tensors out;
  for (const auto& part : parts) out.push_back(at::cat(part, 0));
  return out;
}

// heads[t]: of the whole tensor t. What several ranks send for one head is summed.
Tensors gather_heads(const Tensors& tensors, const std::vector<int64_t>& heads,
                     const Exchange& exchange) {
  Tensors message;
  int64_t row = 0;
  for (const int64_t rows : exchange.rows) {
    for (const auto& tensor : tensors) message.push_back(tensor.narrow(0, row, rows).reshape({-1}));
    row += rows;
  }
  const auto dims = dims_of(tensors);
  const auto counts = exchange.counts(dims);
  Reader reader(exchange.group.all_to_all(at::cat(message), counts.of_heads, counts.of_rows));
  const int64_t rows = exchange.rows[exchange.own()];
  Tensors out;
  for (size_t t = 0; t < tensors.size(); ++t)
    out.push_back(at::zeros({rows, heads[t], dims[t]}, tensors[t].options()));
  for (size_t r = 0; r < exchange.ranks(); ++r) {
    for (size_t t = 0; t < tensors.size(); ++t) {
      const HeadRange range = exchange.ranges[t][r];
      out[t].narrow(1, range.begin, range.count()).add_(reader.take(rows, range.count(), dims[t]));
    }
  }
  return out;
}

c10::intrusive_ptr<Exchange> exchange_of(AutogradContext* context) {
  return c10::static_intrusive_pointer_cast<Exchange>(context->saved_data["exchange"].toCapsule());
}

class ToHeads : public torch::autograd::Function<ToHeads> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList tensors,
                               const c10::intrusive_ptr<Exchange>& exchange) {
    std::vector<int64_t> heads;
    for (const auto& tensor : tensors) heads.push_back(tensor.size(1));
    context->saved_data["exchange"] = c10::IValue::make_capsule(exchange);
    context->saved_data["heads"] = heads;
    return gather_rows(tensors.vec(), *exchange);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list found =
        gather_heads(grads, context->saved_data["heads"].toIntVector(), *exchange_of(context));
    found.emplace_back();
    return found;
  }
};

class ToRows : public torch::autograd::Function<ToRows> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& tensor,
                            const c10::intrusive_ptr<Exchange>& exchange) {
    context->saved_data["exchange"] = c10::IValue::make_capsule(exchange);
    return gather_heads({tensor}, {exchange->ranges[0].back().end}, *exchange)[0];
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    return {gather_rows({grads[0]}, *exchange_of(context))[0], {}};
  }
};

c10::intrusive_ptr<Exchange> make_exchange(const std::vector<HeadRanges>& ranges,
                                           const std::vector<int64_t>& rows,
                                           const dist::Group& group) {
  auto exchange = c10::make_intrusive<Exchange>();
  exchange->ranges = ranges;
  exchange->rows = rows;
  exchange->group = group;
  return exchange;
}

}  // namespace

HeadRanges query_ranges(int64_t query_heads, int64_t ranks) {
  const auto starts = data::even_starts(query_heads, ranks);
  HeadRanges ranges;
  for (size_t r = 0; r + 1 < starts.size(); ++r) ranges.push_back({starts[r], starts[r + 1]});
  return ranges;
}

HeadRanges key_ranges(int64_t query_heads, int64_t key_heads, int64_t ranks) {
  const int64_t group = query_heads / key_heads;
  HeadRanges ranges = query_ranges(query_heads, ranks);
  for (HeadRange& range : ranges) range = {range.begin / group, (range.end - 1) / group + 1};
  return ranges;
}

std::vector<at::Tensor> to_heads(const std::vector<at::Tensor>& tensors,
                                 const std::vector<HeadRanges>& ranges,
                                 const std::vector<int64_t>& rows, const dist::Group& group) {
  return ToHeads::apply(at::TensorList(tensors), make_exchange(ranges, rows, group));
}

at::Tensor to_rows(const at::Tensor& tensor, const HeadRanges& ranges,
                   const std::vector<int64_t>& rows, const dist::Group& group) {
  return ToRows::apply(tensor, make_exchange({ranges}, rows, group));
}

}  // namespace qianli::nn
