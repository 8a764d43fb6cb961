#include "qianli/convert/recent_rows.h"

namespace qianli::convert {
namespace {

constexpr size_t kKept = 4;

}  // namespace

std::shared_ptr<RecentRows::Rows> RecentRows::find_or_add(const formats::TensorSpec& tensor,
                                                          int64_t first, int64_t count) {
  const std::lock_guard lock(mutex_);
  for (const auto& rows : recent_) {
    if (rows->tensor == &tensor && rows->first <= first &&
        first + count <= rows->first + rows->count) {
      return rows;
    }
  }
  if (recent_.size() == kKept) recent_.erase(recent_.begin());
  auto rows = std::make_shared<Rows>();
  rows->tensor = &tensor;
  rows->first = first;
  rows->count = count;
  return recent_.emplace_back(std::move(rows));
}

StoredElements RecentRows::get(const formats::TensorSource& source,
                               const formats::TensorSpec& tensor, int64_t begin, int64_t end) {
  if (const auto view = source.view(tensor)) return {0, *view, nullptr};
  const int64_t row = tensor.num_elements() / formats::num_rows(tensor);
  const int64_t first = begin / row;
  const auto rows = find_or_add(tensor, first, (end + row - 1) / row - first);
  std::call_once(rows->read, [&] {
    std::vector<std::byte> bytes(formats::row_bytes(tensor) * static_cast<uint64_t>(rows->count));
    source.read_rows(tensor, rows->first, rows->count, bytes);
    rows->bytes = std::move(bytes);
  });
  return {rows->first * row, rows->bytes, rows};
}

}  // namespace qianli::convert
