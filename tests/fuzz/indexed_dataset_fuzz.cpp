// Bytes of an .idx file.
#include "qianli/base/error.h"
#include "qianli/formats/indexed_dataset.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto index = formats::parse_dataset_index(fuzz::bytes(data, size), "input");
    fuzz::touch(index.lengths.bytes());
    fuzz::touch(index.offsets.bytes());
    fuzz::touch(index.documents.bytes());
    fuzz::touch(index.modes.bytes());
    const auto element = static_cast<uint64_t>(formats::token_bytes(index.dtype));
    for (size_t i = 0; i < index.lengths.size(); ++i) {
      const auto end = static_cast<uint64_t>(index.offsets[i]) +
                       static_cast<uint64_t>(index.lengths[i]) * element;
      fuzz::require(end <= index.covered_bytes, "sequences lie inside the tokens");
    }
    for (const int64_t entry : index.documents.to_vector()) {
      fuzz::require(entry >= 0 && static_cast<size_t>(entry) <= index.lengths.size(),
                    "documents lie inside the sequences");
    }
  } catch (const DataError&) {
  }
  return 0;
}
