// Rows of Parquet and Arrow files, batch by batch: memory does not grow with the file.
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <parquet/arrow/reader.h>
#include <parquet/properties.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "qianli/formats/arrow/json_cells.h"
#include "qianli/formats/arrow/plugin.h"

namespace qianli::formats {
namespace {

constexpr int64_t kMostBytes = int64_t{2} << 30;  // of memory: a small file may claim any size
constexpr int64_t kBatchRows = 256;
constexpr size_t kTakenAtOnce = size_t{1} << 20;

void check(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

template <class Value>
Value check(arrow::Result<Value> result) {
  check(result.status());
  return std::move(result).ValueUnsafe();
}

using Batches = std::function<std::shared_ptr<arrow::RecordBatch>()>;  // null: no more

std::shared_ptr<arrow::io::RandomAccessFile> open_file(const char* path, arrow::MemoryPool* pool) {
  return check(arrow::io::ReadableFile::Open(path, pool));
}

Batches parquet_batches(const char* path, arrow::MemoryPool* pool) {
  parquet::ReaderProperties of_file(pool);
  of_file.enable_buffered_stream();  // else whole columns of a row group are read at once
  parquet::ArrowReaderProperties of_rows;
  of_rows.set_batch_size(kBatchRows);
  of_rows.set_pre_buffer(false);
  parquet::arrow::FileReaderBuilder builder;
  check(builder.Open(open_file(path, pool), of_file));
  builder.memory_pool(pool)->properties(of_rows);
  const std::shared_ptr<parquet::arrow::FileReader> file = check(builder.Build());
  const std::shared_ptr<arrow::RecordBatchReader> reader = check(file->GetRecordBatchReader());
  return [file, reader] { return check(reader->Next()); };
}

// A file begins so; the format of streams has no such beginning.
bool is_arrow_file(arrow::io::RandomAccessFile& file) {
  char magic[6];
  const int64_t got = check(file.Read(sizeof magic, magic));
  check(file.Seek(0));
  return got == sizeof magic && std::memcmp(magic, "ARROW1", sizeof magic) == 0;
}

Batches arrow_batches(const char* path, arrow::MemoryPool* pool) {
  const auto file = open_file(path, pool);
  arrow::ipc::IpcReadOptions options;
  options.memory_pool = pool;
  if (is_arrow_file(*file)) {
    const auto reader = check(arrow::ipc::RecordBatchFileReader::Open(file, options));
    return [reader, next = 0]() mutable -> std::shared_ptr<arrow::RecordBatch> {
      return next < reader->num_record_batches() ? check(reader->ReadRecordBatch(next++)) : nullptr;
    };
  }
  const auto reader = check(arrow::ipc::RecordBatchStreamReader::Open(file, options));
  return [reader] { return check(reader->Next()); };
}

void check_columns(const arrow::Schema& schema) {
  for (const auto& field : schema.fields()) {
    if (has_json_form(*field->type())) continue;
    throw std::runtime_error("expected columns of numbers, texts, lists and structs, got " +
                             field->ToString());
  }
}

void append_row(const arrow::RecordBatch& batch, const std::vector<std::string>& names, int64_t row,
                std::string& text) {
  text += '{';
  for (int c = 0; c < batch.num_columns(); ++c) {
    if (c > 0) text += ',';
    text += names[static_cast<size_t>(c)];
    append_json(*batch.column(c), row, text);
  }
  text += "}\n";
}

void give_lines(const QianliTableLines& request) {
  // Outlives the call: where a file breaks off, Arrow's threads may still let go of buffers.
  static arrow::CappedMemoryPool pool(arrow::default_memory_pool(), kMostBytes);
  const Batches batches = request.is_parquet ? parquet_batches(request.path, &pool)
                                             : arrow_batches(request.path, &pool);
  int64_t left = request.most_rows;
  std::string text;
  std::vector<std::string> names;
  while (left != 0) {
    const auto batch = batches();
    if (!batch) break;
    check(batch->ValidateFull());  // offsets of a damaged file point anywhere
    if (names.empty()) {
      check_columns(*batch->schema());
      for (const auto& field : batch->schema()->fields())
        append_json_text(field->name(), names.emplace_back()), names.back() += ':';
    }
    for (int64_t row = 0; row < batch->num_rows() && left != 0; ++row, --left) {
      append_row(*batch, names, row, text);
      if (text.size() < kTakenAtOnce) continue;
      if (!request.take(request.user, text.data(), text.size())) return;
      text.clear();
    }
  }
  if (!text.empty()) request.take(request.user, text.data(), text.size());
}

}  // namespace
}  // namespace qianli::formats

bool qianli_table_lines(const QianliTableLines* request, char* problem, size_t problem_bytes) {
  try {
    qianli::formats::give_lines(*request);
    return true;
  } catch (const std::exception& error) {
    const size_t length = std::min(std::strlen(error.what()), problem_bytes - 1);
    std::memcpy(problem, error.what(), length);
    problem[length] = 0;
    return false;
  }
}
