#include "qianli/data/instruction/row_scanner.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/data/unpacked.h"

namespace qianli::data {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kBlanks = " \t\r\n";

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlanks) == text.npos; }

// Behind the closing quote of the string that begins at `at`; npos where there is none.
size_t string_end(std::string_view content, size_t at, size_t end) {
  for (size_t i = at + 1; i < end; ++i) {
    if (content[i] == '\\') {
      ++i;
    } else if (content[i] == '"') {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

// Of the line feed that ends the CSV record at `at`, or `end`. A quote opens a field only where one
// begins, as in Python's csv.
size_t record_end(std::string_view content, size_t at, size_t end) {
  bool quoted = false, field_begins = true;
  for (size_t i = at; i < end; ++i) {
    const char c = content[i];
    if (quoted) {
      if (c != '"') continue;
      if (i + 1 < end && content[i + 1] == '"') {
        ++i;
      } else {
        quoted = false;
      }
    } else if (c == '"' && field_begins) {
      quoted = true;
    } else if (c == '\n') {
      return i;
    }
    field_begins = c == ',';
  }
  return end;
}

}  // namespace

RowKind row_kind_of(const fs::path& name, std::string_view content) {
  const std::string extension = unpacked_name(name).extension().string();
  if (extension == ".csv") return RowKind::kCsv;
  if (extension == ".txt") return RowKind::kText;
  if (extension == ".json" || extension == ".jsonl" || extension == ".ndjson") {
    return kind_of(name, content) == DocumentKind::kJsonArray ? RowKind::kJsonList
                                                              : RowKind::kJsonLines;
  }
  throw DataError(
      "data",
      fmt::format("expected a .json, .jsonl, .csv, .parquet, .arrow or .txt file, got {}",
                  name.string()),
      "the end of the name tells what is in a file");
}

RowScanner::RowScanner(std::string_view content, RowKind kind, std::string source)
    : content_(content), kind_(kind), source_(std::move(source)), end_(content.size()) {
  if (content_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
  if (kind_ == RowKind::kJsonList) begin_list();
}

RowScanner::RowScanner(std::string_view content, RowKind kind, std::string source,
                       const RowRange& range)
    : content_(content),
      kind_(kind),
      source_(std::move(source)),
      at_(range.bytes.begin),
      end_(range.bytes.end),
      line_(range.line) {}

void RowScanner::refuse(const std::string& expected, const std::string& got) const {
  throw DataError("data", fmt::format("{}:{}: expected {}, got {}", source_, line_, expected, got),
                  kind_ == RowKind::kJsonList
                      ? "one object per line (.jsonl) lets a broken row be skipped"
                      : "");
}

std::optional<RowBytes> RowScanner::next() {
  return kind_ == RowKind::kJsonList ? next_element() : next_line();
}

RowBytes RowScanner::take(size_t end) {
  const RowBytes row{content_.substr(at_, end - at_), line_};
  line_ += std::count(row.bytes.begin(), row.bytes.end(), '\n');
  at_ = end;
  return row;
}

std::optional<RowBytes> RowScanner::next_line() {
  while (at_ < end_) {
    RowBytes row = take(kind_ == RowKind::kCsv ? record_end(content_, at_, end_)
                                               : std::min<size_t>(content_.find('\n', at_), end_));
    if (at_ < end_) {
      ++at_;
      ++line_;
    }
    if (row.bytes.ends_with('\r')) row.bytes.remove_suffix(1);
    if (!is_blank(row.bytes)) return row;
  }
  return std::nullopt;
}

void RowScanner::skip_blanks() {
  take(std::min<size_t>(content_.find_first_not_of(kBlanks, at_), content_.size()));
}

void RowScanner::begin_list() {
  skip_blanks();
  if (at_ == end_ || content_[at_] != '[') refuse("a list", "something else");
  ++at_;
  skip_blanks();
  if (at_ == end_) refuse("']'", "the end of the file");
  if (content_[at_] == ']') end_list();
}

void RowScanner::end_list() {
  ++at_;
  skip_blanks();
  if (at_ < content_.size()) refuse("the end of the file behind the list", "more");
  at_ = end_;
}

std::optional<RowBytes> RowScanner::next_element() {
  if (at_ == end_) return std::nullopt;
  const size_t end = element_end();
  if (end == std::string_view::npos)
    refuse("the end of the element that begins here", "the end of the file");
  if (end == at_) refuse("an element", fmt::format("'{}'", content_[at_]));
  const RowBytes row = take(end);
  go_to_element();
  return row;
}

// What is between two elements goes with the first one, so that a range can end there.
void RowScanner::go_to_element() {
  skip_blanks();
  const char c = at_ < content_.size() ? content_[at_] : '\0';
  if (c == ']') return end_list();
  if (c != ',') {
    refuse("',' or ']' behind an element of the list",
           c == '\0' ? "the end of the file" : fmt::format("'{}'", c));
  }
  ++at_;
  skip_blanks();
  if (at_ == content_.size()) refuse("an element behind the comma", "the end of the file");
}

size_t RowScanner::element_end() const {
  int64_t depth = 0;
  for (size_t i = at_; i < content_.size(); ++i) {
    switch (content_[i]) {
      case '"':
        i = string_end(content_, i, content_.size());
        if (i == content_.npos) return i;
        if (depth == 0) return i;
        --i;
        break;
      case '{':
      case '[':
        ++depth;
        break;
      case '}':
      case ']':
        if (depth == 0) return i;
        if (--depth == 0) return i + 1;
        break;
      case ',':
      case ' ':
      case '\t':
      case '\r':
      case '\n':
        if (depth == 0) return i;
        break;
      default:
        break;
    }
  }
  return depth == 0 ? content_.size() : std::string_view::npos;
}

int64_t keep_first_rows(std::string_view content, RowKind kind, RowRange& range, int64_t most) {
  RowScanner scanner(content, kind, std::string(), range);
  int64_t count = 0;
  while (count < most && scanner.next()) ++count;
  range.bytes.end = std::min(range.bytes.end, scanner.rest().bytes.begin);
  return count;
}

std::vector<RowRange> cut_rows(std::string_view content, RowKind kind, const std::string& source,
                               uint64_t target_bytes) {
  RowScanner scanner(content, kind, source);
  if (kind == RowKind::kCsv) scanner.next();  // the header
  std::vector<RowRange> ranges;
  RowRange open = scanner.rest();
  while (scanner.next()) {
    const RowRange rest = scanner.rest();
    if (rest.bytes.begin - open.bytes.begin < target_bytes) continue;
    throw_if_stopped("data");
    open.bytes.end = rest.bytes.begin;
    ranges.push_back(open);
    open = rest;
  }
  open.bytes.end = content.size();
  if (open.bytes.size() > 0) ranges.push_back(open);
  return ranges;
}

}  // namespace qianli::data
