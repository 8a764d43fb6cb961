// From the matrices of adapters that Megatron's ranks hold to those of PEFT.
#pragma once

#include <string>
#include <vector>

#include "qianli/convert/megatron/adapter_layers.h"

namespace qianli::convert {

struct AdapterTables {
  // A [rank, in] of each layer, and B [rows, rank] for each parameter that it holds rows of.
  Table table;
  std::vector<ForeignTensor> stored;   // what the ranks hold of these
  std::vector<ForeignTensor> tensors;  // PEFT's
  // Last parts of names, where all modules of the base that end so have an adapter; else names.
  std::vector<std::string> target_modules;
  bool any_transposed = false;  // a module is stored [in, out] in Hugging Face's form
};

// Where B's rows and A's columns lie follows from where the base's do. Throws CheckpointError,
// naming `what`, for layers that are no modules of Hugging Face's with an adapter of that rank.
AdapterTables adapter_tables(const Table& base, const std::vector<AdaptedLayer>& layers,
                             const std::string& what);

}  // namespace qianli::convert
