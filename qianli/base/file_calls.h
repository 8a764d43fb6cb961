// System calls on files that throw the error of a role.
#pragma once

#include "qianli/base/file.h"

namespace qianli {

// "cannot VERB PATH: " and the reason in errno.
[[noreturn]] void throw_errno(FileRole role, const char* verb, const fs::path& path);

// All of the bytes, at `offset` or, where that is negative, at the descriptor's own place.
void write_all(int fd, const char* data, size_t bytes, int64_t offset, FileRole role,
               const fs::path& path);

}  // namespace qianli
