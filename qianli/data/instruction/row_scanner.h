// Where the rows of a file of instruction data begin and end, found without reading the rows: a
// file of any size is read from its map, row by row, in constant memory.
//
//   .jsonl .ndjson   one JSON object per line
//   .json            a list of objects, or one object per line
//   .csv             RFC 4180 with a header row; quoted fields may hold line feeds
//   .txt             one record per line
//   .parquet .arrow  tables in columns, read as one object per line: lines count rows
//
// A list is walked by counting brackets outside strings; simdjson would index the whole file first,
// which takes memory in proportion to it. What a row holds is checked by whoever parses it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/data/documents.h"

namespace qianli::data {

enum class RowKind { kJsonLines, kJsonList, kCsv, kText };

// By the name (of a packed file: of what is in it) and, for ".json", the first character. DataError
// for a name that no reader is for.
RowKind row_kind_of(const fs::path& name, std::string_view content);

struct RowBytes {
  std::string_view bytes;
  int64_t line = 0;  // of the first byte, counted from 1
};

// Rows that can be read by themselves: bytes [begin, end), from this line on.
struct RowRange {
  ByteRange bytes;
  int64_t line = 1;
};

class RowScanner {
 public:
  // The whole file. `source` names it in errors.
  RowScanner(std::string_view content, RowKind kind, std::string source);
  // A range that cut_rows gave.
  RowScanner(std::string_view content, RowKind kind, std::string source, const RowRange& range);

  // The next row that is not blank, without its line end or comma. DataError with the line where a
  // list is not one.
  std::optional<RowBytes> next();
  // Behind the last row given.
  RowRange rest() const { return {{at_, end_}, line_}; }

 private:
  std::optional<RowBytes> next_line();
  std::optional<RowBytes> next_element();
  void begin_list();
  void go_to_element();
  void end_list();
  void skip_blanks();
  size_t element_end() const;
  RowBytes take(size_t end);
  [[noreturn]] void refuse(const std::string& expected, const std::string& got) const;

  std::string_view content_;
  RowKind kind_;
  std::string source_;
  uint64_t at_ = 0, end_ = 0;
  int64_t line_ = 1;
};

// Shortens a range to its first rows, at most `most`. Returns how many it has.
int64_t keep_first_rows(std::string_view content, RowKind kind, RowRange& range, int64_t most);

// Cuts a file into ranges of about `target_bytes`. The header of a .csv belongs to none of them.
std::vector<RowRange> cut_rows(std::string_view content, RowKind kind, const std::string& source,
                               uint64_t target_bytes);

}  // namespace qianli::data
