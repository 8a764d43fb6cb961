#include "qianli/formats/columnar.h"

#include <dlfcn.h>
#include <fmt/core.h>

#include <array>
#include <exception>

#include "qianli/base/error.h"
#include "qianli/base/own_folder.h"
#include "qianli/formats/arrow/plugin.h"

namespace qianli::formats {
namespace {

using TableLines = decltype(&qianli_table_lines);

[[noreturn]] void refuse_without_library(const fs::path& path, const std::string& why) {
  throw DataError("data", fmt::format("expected a build that reads {}, got {}", path.string(), why),
                  "run scripts/setup.sh and build again; or convert the file, for example with "
                  "DuckDB: COPY (SELECT * FROM 'rows.parquet') TO 'rows.jsonl' (FORMAT JSON)");
}

TableLines library(const fs::path& path) {
  static void* const handle =
      ::dlopen((own_folder() / "libqianli_arrow.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* why = ::dlerror();
    refuse_without_library(path, why ? why : "one without Apache Arrow");
  }
  return reinterpret_cast<TableLines>(::dlsym(handle, "qianli_table_lines"));
}

// No exception may pass through the library.
struct Taker {
  const std::function<bool(std::string_view)>& take;
  std::exception_ptr thrown;

  static bool call(void* user, const char* text, size_t bytes) {
    auto& self = *static_cast<Taker*>(user);
    try {
      return self.take({text, bytes});
    } catch (...) {
      self.thrown = std::current_exception();
      return false;
    }
  }
};

}  // namespace

bool is_columnar(const fs::path& name) {
  return name.extension() == ".parquet" || name.extension() == ".arrow";
}

void read_columnar(const fs::path& path, std::optional<int64_t> most_rows,
                   const std::function<bool(std::string_view)>& take) {
  const TableLines table_lines = library(path);
  if (!fs::exists(path)) MappedFile::open(path, FileRole::kData);  // says what is wrong with it
  Taker taker{take, nullptr};
  const QianliTableLines request{.path = path.c_str(),
                                 .is_parquet = path.extension() == ".parquet",
                                 .most_rows = most_rows.value_or(-1),
                                 .take = &Taker::call,
                                 .user = &taker};
  std::array<char, 1024> problem{};
  const bool read = table_lines(&request, problem.data(), problem.size());
  if (taker.thrown) std::rethrow_exception(taker.thrown);
  if (read) return;
  throw DataError("data", fmt::format("{}: expected a readable {} file, got: {}", path.string(),
                                      request.is_parquet ? "Parquet" : "Arrow", problem.data()));
}

}  // namespace qianli::formats
