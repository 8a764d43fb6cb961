#include "qianli/nn/attached_adapters.h"

#include <algorithm>

namespace qianli::nn {
namespace {

// body(first, count, adapter or kNoAdapter) for rows [begin, end) of a pass, in order.
template <class Body>
void each_run(const std::vector<AdapterRun>& runs, int64_t begin, int64_t end, const Body& body) {
  int64_t next = begin;
  for (const AdapterRun& run : runs) {
    const int64_t first = std::max(run.first, begin), last = std::min(run.first + run.count, end);
    if (first >= last) continue;
    if (next < first) body(next, first - next, kNoAdapter);
    body(first, last - first, run.adapter);
    next = last;
  }
  if (next < end) body(next, end - next, kNoAdapter);
}

std::vector<int64_t> adapter_of_rows(const std::vector<AdapterRun>& runs, int64_t rows) {
  std::vector<int64_t> adapters(static_cast<size_t>(rows), kNoAdapter);
  for (const AdapterRun& run : runs) {
    std::fill_n(adapters.begin() + static_cast<ptrdiff_t>(run.first), run.count, run.adapter);
  }
  return adapters;
}

}  // namespace

at::Tensor AttachedLowRank::merged(const at::Tensor& weight) const {
  const at::Tensor sum = weight.clone();
  const int64_t rank = b.size(1);
  int64_t column = 0, row = 0;
  for (const ops::LowRank::Rows& rows : modules) {
    sum.narrow(0, rows.first, rows.count)
        .addmm_(b.narrow(0, row, rows.count), a.narrow(0, column, rank), 1.0, scale);
    column += rank;
    row += rows.count;
  }
  return factors.defined() ? sum.mul_(factors.unsqueeze(1)) : sum;
}

void AttachedLowRank::add(const at::Tensor& x, const ops::Parameter* bias, at::Tensor y) const {
  const ops::LowRankValues values{a, b, scale, modules};
  values.add_up(values.down(x), y);
  if (!factors.defined()) return;
  if (bias) y.sub_(bias->value());
  y.mul_(factors);
  if (bias) y.add_(bias->value());
}

const AttachedLowRank* AttachedLinear::find(int64_t adapter) const {
  const auto place = adapters_.find(adapter);
  return place == adapters_.end() ? nullptr : &place->second;
}

void AttachedLinear::add(const at::Tensor& x, const ops::Parameter* bias, int64_t first,
                         const at::Tensor& y) const {
  TORCH_CHECK(first + x.size(0) <= pass_->rows, "[nn] expected rows of a pass of ", pass_->rows,
              ", got ", x.size(0), " from ", first, " on");
  each_run(pass_->runs, first, first + x.size(0), [&](int64_t row, int64_t count, int64_t adapter) {
    const AttachedLowRank* own = find(adapter);
    if (own) own->add(x.narrow(0, row - first, count), bias, y.narrow(0, row - first, count));
  });
}

void AttachedLinear::add_to_experts(const at::Tensor& x, const std::vector<int64_t>& counts,
                                    const at::Tensor& tokens, const at::Tensor& y) const {
  const std::vector<int64_t> adapters = adapter_of_rows(pass_->runs, pass_->rows);
  const at::Tensor on_host = tokens.to(at::kCPU);
  const auto adapter_at = [&](int64_t row) {
    return adapters[static_cast<size_t>(on_host.const_data_ptr<int64_t>()[row])];
  };
  int64_t row = 0;
  for (size_t e = 0; e < counts.size(); ++e) {
    for (const int64_t end = row + counts[e]; row < end;) {
      const int64_t first = row, adapter = adapter_at(row);
      while (row < end && adapter_at(row) == adapter) ++row;
      const AttachedLowRank* own = find(adapter);
      if (!own) continue;
      const auto expert = static_cast<int64_t>(e);
      const ops::LowRankValues values{own->a.select(0, expert), own->b.select(0, expert),
                                      own->scale, own->modules};
      values.add_up(values.down(x.narrow(0, first, row - first)), y.narrow(0, first, row - first));
    }
  }
}

std::vector<AttachedLinear::RowsWeight> AttachedLinear::weights(const at::Tensor& weight,
                                                                int64_t rows) const {
  std::vector<RowsWeight> found;
  each_run(pass_->runs, 0, rows, [&](int64_t first, int64_t count, int64_t adapter) {
    const AttachedLowRank* own = find(adapter);
    found.push_back({own ? own->merged(weight) : weight, first, count});
  });
  return found;
}

AttachedAdapters::AttachedAdapters() : pass_(std::make_shared<AttachedLinear::Pass>()) {}

int64_t AttachedAdapters::attach(std::map<std::string, AttachedLowRank> layers) {
  for (auto& [name, adapter] : layers) own(name)->adapters_[size_] = std::move(adapter);
  return size_++;
}

void AttachedAdapters::begin(std::vector<AdapterRun> runs, int64_t rows) {
  pass_->runs = std::move(runs);
  pass_->rows = rows;
}

std::shared_ptr<AttachedLinear> AttachedAdapters::own(const std::string& layer) {
  std::shared_ptr<AttachedLinear>& found = layers_[layer];
  if (!found) {
    found = std::make_shared<AttachedLinear>();
    found->pass_ = pass_;
  }
  return found;
}

}  // namespace qianli::nn
