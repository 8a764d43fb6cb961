// From text to a token corpus: PREFIX.{bin,idx} in Megatron's format and PREFIX.json (manifest.h).
//
// Work is cut into parts of some megabytes that are tokenised in parallel and kept in PREFIX.parts
// until all are there, so an interrupted preparation goes on where it was, even after SIGKILL. The
// result does not depend on the number of threads or interruptions.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/data/document_encoder.h"
#include "qianli/data/documents.h"
#include "qianli/data/manifest.h"
#include "qianli/data/parted_work.h"

namespace qianli::data {

struct PrepareOptions {
  std::vector<fs::path> inputs;  // in this order
  DocumentRules rules;
  bool append_eod = true;
  int threads = 0;         // 0: available_cores()
  bool overwrite = false;  // replace a corpus made from something else
  uint64_t part_bytes = uint64_t{8} << 20;
  ReportBytes report;  // at the start and after each part
};

// Writes the corpus unless it is there already, made from the same. DataError for unreadable input,
// StoppedError when the program was asked to stop.
CorpusManifest prepare_corpus(const fs::path& prefix, const PrepareOptions& options,
                              const DocumentEncoder& encoder);

}  // namespace qianli::data
