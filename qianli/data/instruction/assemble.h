// Samples of many parts as one data set. Internal to prepare.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/data/instruction/packing.h"

namespace qianli::data {

struct Assembly {
  fs::path prefix;
  std::vector<fs::path> parts;  // PART.FIELD each
  std::vector<std::string> fields;
  Packing packing = Packing::kNone;
  int64_t sequence_length = 0;  // of packed data
  int32_t pad = 0;

  fs::path part_of(const fs::path& part, const std::string& field) const {
    return part.string() + "." + field;
  }
};

// The fields that are written: those of the parts, with an attention mask where ids have no name of
// their own.
std::vector<std::string> written_fields(const std::vector<std::string>& fields);

// Returns the number of sequences written.
int64_t assemble(const Assembly& assembly);

}  // namespace qianli::data
