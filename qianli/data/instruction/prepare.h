// From rows of instruction data to training samples: PREFIX_packed_FIELD_document.{bin,idx} in
// Megatron's format under MindSpeed-LLM's names, and PREFIX_packed.json (manifest.h).
//
// Interrupted work goes on where it was (parted_work.h). The result does not depend on the number
// of threads, the size of parts, or interruptions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/data/instruction/manifest.h"
#include "qianli/data/instruction/mixing.h"
#include "qianli/data/instruction/packing.h"
#include "qianli/data/instruction/rows.h"
#include "qianli/data/instruction/sample_encoder.h"
#include "qianli/data/parted_work.h"

namespace qianli::data {

// What the rows are, as far as it is known.
struct RowsOptions {
  std::vector<fs::path> inputs;  // files and folders, in this order
  // Empty: as the first rows tell.
  std::optional<RowFormat> format;
  std::optional<InstructionTask> task;
  std::string map_keys;  // --map-keys, JSON or ""
  Legacy legacy = Legacy::kNone;
  std::optional<int64_t> max_rows;  // only the first ones
};

// The same, known.
struct KnownRows {
  std::vector<fs::path> files;
  RowFormat format = RowFormat::kAlpaca;
  InstructionTask task = InstructionTask::kSft;
  ColumnMap columns;
  Legacy legacy = Legacy::kNone;
  std::optional<int64_t> max_rows;
  std::vector<std::string> notices;  // what was found out or left out, to be told
};
// Reads the first rows of the first file. DataError where they are not understood.
KnownRows look_at_rows(const RowsOptions& options);

struct InstructionOptions {
  KnownRows rows;
  std::vector<KnownRows> more;  // further data sets, for the same task
  Mixing mixing;                // of these with the first
  Packing packing = Packing::kNone;
  // So many groups of samples are packed, each by itself (MindSpeed-LLM's --n-subs).
  int64_t num_subs = 1;
  bool fail_on_bad_rows = false;  // else they are counted and left out
  int threads = 0;                // 0: available_cores()
  bool overwrite = false;         // replace data made from something else
  uint64_t part_bytes = uint64_t{4} << 20;
  ReportBytes report;
};

// By what such data are known (InstructionManifest::identity): reads the files, but makes nothing.
std::string instruction_identity(const InstructionOptions& options, const SampleEncoder& encoder);

// Writes the samples unless they are there already, made from the same. DataError for unreadable
// input and where no row gives a sample, StoppedError when the program was asked to stop.
InstructionManifest prepare_instructions(const fs::path& prefix, const InstructionOptions& options,
                                         const SampleEncoder& encoder);

}  // namespace qianli::data
