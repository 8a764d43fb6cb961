// Rows of instruction data: an object of columns each, with the place it comes from.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/data/instruction/row_scanner.h"

namespace qianli::data {

// A row takes at most this many bytes in its file.
inline constexpr uint64_t kMaxRowBytes = uint64_t{16} << 20;

// A row that cannot be used, and why: "alpaca.jsonl:17: ...".
using BadRow = std::function<void(const std::string& problem)>;
// `place`: "alpaca.jsonl:17".
using VisitRow = std::function<void(const OrderedJson& columns, const std::string& place)>;

// One file of rows.
struct RowFile {
  std::string name;  // in errors
  RowKind kind = RowKind::kJsonLines;
  std::string_view content;
  std::vector<std::string> header;  // of a .csv
};
// DataError for a name that no reader is for and for a .csv without a usable header.
RowFile row_file(const fs::path& name, std::string_view content);

// Calls visit for each row of a range, in order, or bad where it is no object of columns. All cells
// of a .csv are texts, the record of a .txt stands in the column "text". A DataError that visit
// throws makes the row a bad one; its problem is put behind the place.
void for_each_row(const RowFile& file, const RowRange& range, const VisitRow& visit,
                  const BadRow& bad);

// The first rows of a file, at most `count` with the bad ones. DataError where a list is not one.
void for_first_rows(const RowFile& file, size_t count, const VisitRow& visit, const BadRow& bad);
// The same, of a file that may be packed (unpacked.h).
void for_first_rows(const fs::path& path, size_t count, const VisitRow& visit, const BadRow& bad);

// The fields of one CSV record. DataError where quotes do not fit.
std::vector<std::string> csv_fields(std::string_view record);

// The files to read: a folder gives those of its most frequent extension that there is a reader
// for, by name; what else is in it is named in `notices`. DataError where there are none, or two
// extensions are equally frequent.
struct InputFiles {
  std::vector<fs::path> files;
  std::vector<std::string> notices;
};
InputFiles input_files(const std::vector<fs::path>& given);

// What an error says without its component: "[data] expected ..." gives "expected ...".
std::string problem_of(const std::exception& error);

}  // namespace qianli::data
