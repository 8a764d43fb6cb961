// Input files that are read as others: packed ones (.gz), and tables in columns (.parquet, .arrow),
// which are read as lines of JSON.
#pragma once

#include <cstdint>
#include <string>

#include "qianli/base/file.h"

namespace qianli::data {

bool is_packed(const fs::path& path);
// The name of what is in it: "rows.json" for "rows.json.gz", "rows.jsonl" for "rows.parquet"; any
// other name stays.
fs::path unpacked_name(const fs::path& name);

// DataError when it is damaged or cut.
void unpack(const fs::path& packed, const fs::path& unpacked);
// The beginning of what is in it: at most `most_bytes`, of a table also at most `most_rows` lines.
std::string first_unpacked_bytes(const fs::path& packed, size_t most_bytes, int64_t most_rows);

}  // namespace qianli::data
