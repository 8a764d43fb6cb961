// Samples of many parts as one data set. Internal to prepare.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/data/instruction/packing.h"
#include "qianli/data/instruction/sample_order.h"

namespace qianli::data {

struct Assembly {
  fs::path prefix;
  std::vector<fs::path> parts;  // PART.FIELD each
  std::vector<std::string> fields;
  Packing packing = Packing::kNone;
  int64_t sequence_length = 0;  // of packed data
  int32_t pad = 0;
  std::optional<SampleOrder> order;  // else as they stand in the parts

  fs::path part_of(const fs::path& part, const std::string& field) const {
    return part.string() + "." + field;
  }
};

// The fields that are written: those of the parts, with an attention mask where ids have no name of
// their own.
std::vector<std::string> written_fields(const std::vector<std::string>& fields);

struct Assembled {
  int64_t sequences = 0;
  // Of what was put into an order: some samples may be missing, others there several times.
  int64_t samples = 0, tokens = 0, trained = 0;
};
Assembled assemble(const Assembly& assembly);

}  // namespace qianli::data
