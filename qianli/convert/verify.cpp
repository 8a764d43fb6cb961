#include "qianli/convert/verify.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>

#include "qianli/base/error.h"

namespace qianli::convert {
namespace {

constexpr int64_t kBytesAtOnce = int64_t{32} << 20;

// Rows [first, first + count) of a parameter as a tensor of their own.
ForeignTensor rows_of(size_t parameter, int64_t first, int64_t count, int64_t columns) {
  return {.name = "rows",
          .shape = {count, columns},
          .parts = {{.parameter = parameter,
                     .first_row = first,
                     .rows = count,
                     .columns = columns,
                     .foreign_rows = count,
                     .foreign_columns = columns}}};
}

void compare(const ModelSource& source, const ModelSource& target, size_t parameter) {
  const model::ParameterEntry& entry = source.table[parameter];
  const formats::Dtype dtype = target.reader->dtype(parameter);
  const int64_t rows = matrix_rows(entry), columns = matrix_columns(entry);
  const auto row_bytes =
      static_cast<int64_t>(formats::TensorSpec{"", dtype, {columns}}.num_bytes());
  const int64_t step = std::max<int64_t>(1, kBytesAtOnce / std::max<int64_t>(1, row_bytes));
  std::vector<std::byte> before, after;
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    before.resize(static_cast<size_t>(count * row_bytes));
    after.resize(before.size());
    const ForeignTensor part = rows_of(parameter, first, count, columns);
    source.reader->assemble(part, dtype, before);
    target.reader->assemble(part, dtype, after);
    const auto [at, ignored] = std::ranges::mismatch(before, after);
    if (at == before.end()) continue;
    throw CheckpointError("convert",
                          fmt::format("expected {} as it was, got another row {}", entry.name,
                                      first + (at - before.begin()) / row_bytes));
  }
}

}  // namespace

Proof verify(const ModelSource& original, const ModelSource& target) {
  const auto stored = target.after_storing ? target.after_storing(original) : nullptr;
  const ModelSource& source = stored ? *stored : original;
  if (const auto changed = model::differences(source.spec, target.spec); !changed.empty()) {
    throw CheckpointError("convert", "expected the same model, got another " + changed.front());
  }
  Proof proof;
  for (size_t i = 0; i < source.table.size(); ++i) {
    compare(source, target, i);
    ++proof.parameters;
    proof.elements += static_cast<uint64_t>(source.table[i].elements());
  }
  return proof;
}

}  // namespace qianli::convert
