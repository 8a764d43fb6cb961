#include "qianli/convert/verify.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"

namespace qianli::convert {
namespace {

constexpr int64_t kElementsAtOnce = int64_t{1} << 21;

void compare(const ModelSource& source, const ModelSource& target, const RowRange& range) {
  const model::ParameterEntry& entry = source.table[range.parameter];
  const formats::Dtype dtype = target.reader->dtype(range.parameter);
  const ForeignTensor rows = rows_of(source.table, range.parameter, range.first, range.rows);
  std::vector<std::byte> before(formats::TensorSpec{"", dtype, rows.shape}.num_bytes());
  std::vector<std::byte> after(before.size());
  source.reader->assemble(rows, dtype, before);
  target.reader->assemble(rows, dtype, after);
  const auto [at, ignored] = std::ranges::mismatch(before, after);
  if (at == before.end()) return;
  const auto row_bytes = static_cast<int64_t>(before.size()) / range.rows;
  throw CheckpointError("convert",
                        fmt::format("expected {} as it was, got another row {}", entry.name,
                                    range.first + (at - before.begin()) / row_bytes));
}

}  // namespace

Proof verify(const ModelSource& original, const ModelSource& target) {
  const auto stored = target.after_storing ? target.after_storing(original) : nullptr;
  const ModelSource& source = stored ? *stored : original;
  if (const auto changed = model::differences(source.spec, target.spec); !changed.empty()) {
    throw CheckpointError("convert", "expected the same model, got another " + changed.front());
  }
  const auto ranges = row_ranges(source.table, kElementsAtOnce);
  parallel_for(static_cast<int64_t>(ranges.size()), available_cores(), [&](int64_t i) {
    throw_if_stopped("convert");
    compare(source, target, ranges[static_cast<size_t>(i)]);
  });
  if (const auto copies = target.reader->differing_copies(); !copies.empty()) {
    throw CheckpointError("convert", "expected all copies alike, got another in " + copies.front());
  }
  Proof proof{.parameters = source.table.size()};
  for (size_t i = 0; i < source.table.size(); ++i) {
    proof.elements += static_cast<uint64_t>(source.table[i].elements());
    const formats::Dtype dtype = target.reader->dtype(i);
    proof.rounded |= original.reader->dtype(i) != dtype || target.reader->natural_dtype(i) != dtype;
  }
  return proof;
}

}  // namespace qianli::convert
