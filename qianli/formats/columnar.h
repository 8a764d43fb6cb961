// Tables in columns, read row by row: Parquet (.parquet) and Arrow's IPC format, as a file or as a
// stream (.arrow, what Hugging Face datasets keeps). The reading is done by Apache Arrow, in a
// library that is opened with the first such file.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "qianli/base/file.h"

namespace qianli::formats {

// By the end of the name.
bool is_columnar(const fs::path& name);

// Calls take(text) with whole lines, a JSON object of all columns each, in order; `take` returns
// false for no more. Cells as in arrow/json_cells.h. DataError naming the file where it is damaged,
// where a column is of a type that JSON has no form for, where more than 2 GiB of memory would be
// needed, and where this build has no Arrow.
void read_columnar(const fs::path& path, std::optional<int64_t> most_rows,
                   const std::function<bool(std::string_view lines)>& take);

}  // namespace qianli::formats
