// `data inspect` of instruction data, as rows or prepared.
#pragma once

#include <string>
#include <vector>

#include "apps/qianli/instruction_options.h"

namespace qianli::app {

struct InspectSamples {
  std::vector<std::string> paths;
  std::string tokenizer;
  int64_t sample = 0;
  int64_t rows = 1000;  // looked at
  bool json = false, colour = false;
};

// Rows, and what becomes of them.
void inspect_rows(const InspectSamples& options, const InstructionFlags& flags);
// PREFIX of prepared samples.
void inspect_prepared(const InspectSamples& options);

}  // namespace qianli::app
