#include "qianli/data/instruction/rows.h"

#include <fmt/core.h>
#include <simdjson.h>

#include <algorithm>
#include <map>
#include <set>

#include "qianli/base/error.h"
#include "qianli/base/strings.h"
#include "qianli/data/unpacked.h"
#include "qianli/formats/columnar.h"

namespace qianli::data {
namespace {

// Of a packed file, to see its first rows.
constexpr size_t kUnpacked = size_t{32} << 20;

[[noreturn]] void refuse(const std::string& problem, const std::string& hint = {}) {
  throw DataError("data", problem, hint);
}

OrderedJson json_columns(const RowBytes& row) {
  // Of a key that stands twice the last one counts, as in Python.
  OrderedJson columns =
      parse_ordered_json(row.bytes, "this row", FileRole::kData, {.refuse_duplicate_keys = false});
  if (!columns.is_object())
    refuse(fmt::format("expected an object of columns, got {}", columns.type_name()));
  return columns;
}

OrderedJson csv_columns(const RowBytes& row, const std::vector<std::string>& header) {
  std::vector<std::string> fields = csv_fields(row.bytes);
  if (fields.size() != header.size()) {
    refuse(fmt::format("expected {} fields as in the header, got {}", header.size(), fields.size()),
           "fields with commas, quotes or line feeds stand in quotes");
  }
  OrderedJson columns = OrderedJson::object();
  for (size_t i = 0; i < fields.size(); ++i) columns[header[i]] = std::move(fields[i]);
  return columns;
}

OrderedJson columns_of(const RowFile& file, const RowBytes& row) {
  if (row.bytes.size() > kMaxRowBytes) {
    refuse(
        fmt::format("expected at most {} bytes in a row, got {}", kMaxRowBytes, row.bytes.size()));
  }
  if (file.kind == RowKind::kJsonLines || file.kind == RowKind::kJsonList) return json_columns(row);
  if (!simdjson::validate_utf8(row.bytes.data(), row.bytes.size()))
    refuse("expected UTF-8, got other bytes", "convert the file: iconv -f OLD -t UTF-8");
  if (file.kind == RowKind::kCsv) return csv_columns(row, file.header);
  return {{"text", std::string(row.bytes)}};
}

void visit_row(const RowFile& file, const RowBytes& row, const VisitRow& visit, const BadRow& bad) {
  const std::string place = fmt::format("{}:{}", file.name, row.line);
  try {
    visit(columns_of(file, row), place);
  } catch (const DataError& error) {
    bad(fmt::format("{}: {}", place, problem_of(error)));
  }
}

// "rows.jsonl.gz" has the extension ".jsonl".
std::string extension_of(const fs::path& path) {
  return (formats::is_columnar(path) ? path : unpacked_name(path)).extension().string();
}

bool is_supported(const std::string& extension) {
  static const std::set<std::string> kKnown = {".json",    ".jsonl", ".ndjson", ".csv",
                                               ".parquet", ".arrow", ".txt"};
  return kKnown.count(extension) > 0;
}

void add_folder(const fs::path& folder, InputFiles& input) {
  std::map<std::string, std::vector<fs::path>> by_extension;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && !entry.path().filename().string().starts_with('.'))
      by_extension[extension_of(entry.path())].push_back(entry.path());
  }
  const std::vector<fs::path>* chosen = nullptr;
  bool tie = false;
  for (const auto& [extension, files] : by_extension) {
    if (!is_supported(extension)) continue;
    if (chosen == nullptr || files.size() > chosen->size()) {
      chosen = &files;
      tie = false;
    } else {
      tie = tie || files.size() == chosen->size();
    }
  }
  if (chosen == nullptr) {
    refuse(fmt::format(
        "expected .json, .jsonl, .csv, .parquet, .arrow or .txt files in {}, got none of them",
        folder.string()));
  }
  if (tie) {
    refuse(fmt::format("expected one kind of files in {}, got two that are equally frequent",
                       folder.string()),
           "name the files one by one");
  }
  const size_t first = input.files.size();
  std::vector<std::string> ignored;
  for (const auto& [extension, files] : by_extension) {
    for (const fs::path& file : files) {
      if (&files == chosen) input.files.push_back(file);
      if (&files != chosen) ignored.push_back(file.filename().string());
    }
  }
  std::sort(input.files.begin() + static_cast<ptrdiff_t>(first), input.files.end());
  std::sort(ignored.begin(), ignored.end());
  if (!ignored.empty()) {
    input.notices.push_back(fmt::format("{}: reading the {} {} files, not {}", folder.string(),
                                        chosen->size(), extension_of(chosen->front()),
                                        join(ignored, ", ")));
  }
}

}  // namespace

std::string problem_of(const std::exception& error) {
  const std::string text = error.what();
  const size_t end = text.starts_with('[') ? text.find("] ") : text.npos;
  return end == text.npos ? text : text.substr(end + 2);
}

RowFile row_file(const fs::path& name, std::string_view content) {
  RowFile file{name.string(), row_kind_of(name, content), content, {}};
  if (file.kind != RowKind::kCsv) return file;
  const auto header = RowScanner(content, file.kind, file.name).next();
  if (!header || header->bytes.size() > kMaxRowBytes)
    refuse(fmt::format("expected a header row in {}, got none", file.name));
  file.header = csv_fields(header->bytes);
  std::set<std::string> seen;
  for (const std::string& column : file.header) {
    if (seen.insert(column).second) continue;
    refuse(fmt::format("{}:{}: expected every column once in the header, got '{}' again", file.name,
                       header->line, column));
  }
  return file;
}

void for_each_row(const RowFile& file, const RowRange& range, const VisitRow& visit,
                  const BadRow& bad) {
  RowScanner scanner(file.content, file.kind, file.name, range);
  while (const auto row = scanner.next()) visit_row(file, *row, visit, bad);
}

void for_first_rows(const RowFile& file, size_t count, const VisitRow& visit, const BadRow& bad) {
  RowScanner scanner(file.content, file.kind, file.name);
  if (file.kind == RowKind::kCsv) scanner.next();
  for (; count > 0; --count) {
    const auto row = scanner.next();
    if (!row) break;
    visit_row(file, *row, visit, bad);
  }
}

void for_first_rows(const fs::path& path, size_t count, const VisitRow& visit, const BadRow& bad) {
  if (!is_packed(path)) {
    const auto map = MappedFile::open(path, FileRole::kData);
    const std::string_view content(reinterpret_cast<const char*>(map->data()), map->size());
    return for_first_rows(row_file(path, content), count, visit, bad);
  }
  const std::string begin = first_unpacked_bytes(path, kUnpacked, static_cast<int64_t>(count));
  try {
    for_first_rows(row_file(path, begin), count, visit, bad);
  } catch (const DataError&) {
    if (begin.size() < kUnpacked) throw;  // else the list goes on behind what was unpacked
  }
}

std::vector<std::string> csv_fields(std::string_view record) {
  std::vector<std::string> fields(1);
  for (size_t i = 0; i < record.size(); ++i) {
    if (record[i] == ',') {
      fields.emplace_back();
      continue;
    }
    const bool begins = i == 0 || record[i - 1] == ',';
    if (record[i] != '"' || !begins || !fields.back().empty()) {
      fields.back() += record[i];
      continue;
    }
    for (++i; i < record.size(); ++i) {
      if (record[i] == '"' && record.substr(i).starts_with("\"\"")) {
        ++i;
      } else if (record[i] == '"') {
        break;
      }
      fields.back() += record[i];
    }
    if (i >= record.size()) refuse("expected a quote at the end of a quoted field, got none");
    if (i + 1 < record.size() && record[i + 1] != ',') {
      refuse(fmt::format("expected a comma behind a quoted field, got '{}'", record[i + 1]),
             "a quote in a quoted field is written twice");
    }
  }
  return fields;
}

InputFiles input_files(const std::vector<fs::path>& given) {
  InputFiles input;
  for (const fs::path& path : given) {
    if (fs::is_directory(path)) {
      add_folder(path, input);
    } else {
      input.files.push_back(path);
    }
  }
  return input;
}

}  // namespace qianli::data
