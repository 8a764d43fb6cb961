// The manifest of a checkpoint.
#include "qianli/base/error.h"
#include "qianli/formats/manifest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const formats::Manifest manifest = formats::parse_manifest(text, "input");
    for (const auto& tensor : manifest.tensors) {
      uint64_t bytes = 0;
      for (const auto& slice : tensor.slices) {
        bytes += formats::byte_size(tensor.dtype, slice.shape).value_or(0);
      }
      fuzz::require(bytes == formats::byte_size(tensor.dtype, tensor.shape).value_or(1),
                    "the slices hold as many bytes as the tensor");
    }
    fuzz::require(formats::parse_manifest(to_json(manifest), "printed") == manifest,
                  "what is printed reads as what was read");
  } catch (const CheckpointError&) {
  }
  return 0;
}
