// The C boundary of the library that reads columnar files with Apache Arrow. It is opened when such
// a file comes: it and Arrow take 62 MB.
#pragma once

#include <cstddef>
#include <cstdint>

struct QianliTableLines {
  const char* path;
  bool is_parquet;    // else an Arrow IPC file or stream
  int64_t most_rows;  // negative: all
  // Takes the next whole lines: an object of columns each. False: no more are wanted.
  bool (*take)(void* user, const char* text, size_t bytes);
  void* user;
};

// False where the file cannot be read; `problem` then says why, cut to `problem_bytes`.
extern "C" bool qianli_table_lines(const QianliTableLines* request, char* problem,
                                   size_t problem_bytes);
