#include "qianli/base/error.h"
#include "qianli/formats/zip.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    size_t total = 0;
    for (const auto& entry :
         formats::parse_zip(fuzz::bytes(data, size), "input", FileRole::kCheckpoint)) {
      fuzz::touch(entry.bytes);
      total += entry.bytes.size();
    }
    fuzz::require(total < size, "entries do not overlap");
  } catch (const CheckpointError&) {
  }
  return 0;
}
