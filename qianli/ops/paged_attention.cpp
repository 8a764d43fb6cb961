#include "qianli/ops/paged_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include "qianli/ops/attention_call.h"
#include "qianli/ops/cpu/paged_attention.h"
#include "qianli/ops/dispatch.h"

namespace qianli::ops {
namespace {

// One query for each table.
std::vector<int64_t> single_queries(size_t count) {
  std::vector<int64_t> starts(count + 1);
  std::iota(starts.begin(), starts.end(), 0);
  return starts;
}

at::Tensor by_kernel(const at::Tensor& q_given, const at::Tensor& k, const at::Tensor& v,
                     std::span<const BlockTable> tables, const AttentionCall& call) {
  const at::Tensor q = with_whole_heads(q_given);
  at::Tensor out = at::empty({q.size(0), q.size(1), v.size(3)}, q.options());
  size_t width = 1;
  for (const BlockTable& table : tables) width = std::max(width, table.blocks.size());
  std::vector<int64_t> flat(width * tables.size(), kNoBlock), lengths;
  for (size_t row = 0; row < tables.size(); ++row) {
    std::ranges::copy(tables[row].blocks, flat.begin() + static_cast<ptrdiff_t>(row * width));
    lengths.push_back(tables[row].length);
  }
  const auto float_data = [](const at::Tensor& x) {
    return x.defined() ? x.data_ptr<float>() : nullptr;
  };
  cpu::paged_attention({.dtype = kernel_dtype(q),
                        .rows = q.size(0),
                        .query_heads = q.size(1),
                        .key_heads = k.size(1),
                        .head_dim = q.size(2),
                        .value_dim = v.size(3),
                        .block_size = k.size(2),
                        .scale = call.layout.scale,
                        .softcap = call.layout.softcap,
                        .window = call.layout.window,
                        .slopes = float_data(call.slopes),
                        .sinks = float_data(call.sink_values),
                        .q = q.data_ptr(),
                        .q_stride = q.stride(0),
                        .q_head_stride = q.stride(1),
                        .k = k.data_ptr(),
                        .v = v.data_ptr(),
                        .k_block_stride = k.stride(0),
                        .k_head_stride = k.stride(1),
                        .k_stride = k.stride(2),
                        .v_block_stride = v.stride(0),
                        .v_head_stride = v.stride(1),
                        .v_stride = v.stride(2),
                        .tables = flat.data(),
                        .table_stride = static_cast<int64_t>(width),
                        .lengths = lengths.data(),
                        .out = out.data_ptr()});
  return out;
}

}  // namespace

at::Tensor gather_blocks(const at::Tensor& pool, std::span<const BlockTable> tables,
                         std::vector<int64_t>& starts) {
  const int64_t heads = pool.size(1), size = pool.size(2), dim = pool.size(3);
  if (tables.size() == 1 && tables[0].blocks.size() == 1) {  // all in one block: no copy
    starts = {0, tables[0].length};
    return pool[tables[0].blocks[0]].narrow(1, 0, tables[0].length).transpose(0, 1);
  }
  starts = {0};
  std::vector<int64_t> blocks;
  for (const BlockTable& table : tables) {
    const auto first = std::ranges::find_if(table.blocks, [](int64_t b) { return b != kNoBlock; });
    const auto skipped = first - table.blocks.begin();
    starts.push_back(starts.back() + table.length - skipped * size);
  }
  at::Tensor rows = at::empty({heads, starts.back(), dim}, pool.options());
  for (size_t t = 0; t < tables.size(); ++t) {
    blocks.clear();
    for (const int64_t block : tables[t].blocks) {
      if (block != kNoBlock) blocks.push_back(block);
    }
    const int64_t count = starts[t + 1] - starts[t];
    const auto ids = at::tensor(blocks, at::kLong).to(pool.device());
    rows.narrow(1, starts[t], count)
        .copy_(pool.index_select(0, ids)
                   .transpose(0, 1)
                   .reshape({heads, static_cast<int64_t>(blocks.size()) * size, dim})
                   .narrow(1, 0, count));
  }
  return rows.transpose(0, 1);
}

at::Tensor paged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::span<const BlockTable> tables, const AttentionLayout& layout,
                           Parameter* sinks) {
  TORCH_CHECK(q.dim() == 3 && k.dim() == 4 && v.dim() == 4 && q.size(2) == k.size(3) &&
                  q.size(1) % k.size(1) == 0 && static_cast<int64_t>(tables.size()) == q.size(0),
              "[attention] expected one table for each query and blocks [blocks, key heads, size, "
              "D], got ",
              q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  const bool native = q.is_cpu() && attention_kernels(q, v) && k.size(2) <= cpu::kMostPagedBlock &&
                      k.stride(3) == 1 && v.stride(3) == 1;
  if (native) return by_kernel(q, k, v, tables, AttentionCall(layout, sinks, q.device()));
  AttentionLayout whole = layout;
  whole.q_starts = single_queries(tables.size());
  const at::Tensor keys = gather_blocks(k, tables, whole.k_starts);
  return attention(q, keys, gather_blocks(v, tables, whole.k_starts), whole, sinks);
}

at::Tensor reference::paged_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      std::span<const BlockTable> tables,
                                      const AttentionLayout& layout, const at::Tensor& sinks) {
  AttentionLayout whole = layout;
  whole.q_starts = single_queries(tables.size());
  const at::Tensor keys = gather_blocks(k, tables, whole.k_starts);
  return attention(q, keys, gather_blocks(v, tables, whole.k_starts), whole, sinks);
}

}  // namespace qianli::ops
