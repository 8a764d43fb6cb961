#include "qianli/base/error.h"
#include "qianli/formats/pickle.h"
#include "tests/fuzz/fuzz.h"

namespace {

using qianli::formats::Value;

// Walks the whole tree, which must have an end.
size_t walk(const Value& value, int depth) {
  qianli::fuzz::require(depth < 300, "the depth is bounded");
  size_t count = 1;
  if (const auto* items = value.items()) {
    for (const Value& item : *items) count += walk(item, depth + 1);
  }
  if (const auto* entries = value.entries()) {
    for (const auto& [key, item] : *entries) count += walk(key, depth + 1) + walk(item, depth + 1);
  }
  if (const auto* object = value.as_object()) {
    count += walk(object->arguments, depth + 1) + walk(object->state, depth + 1);
    for (const Value& item : object->elements) count += walk(item, depth + 1);
    for (const auto& [key, item] : object->entries) {
      count += walk(key, depth + 1) + walk(item, depth + 1);
    }
  }
  if (const auto* tensor = value.as_tensor()) {
    qianli::fuzz::require(tensor->shape.size() == tensor->strides.size(), "an axis has a stride");
    qianli::fuzz::require(byte_size(tensor->dtype, tensor->shape).has_value(), "a size is valid");
  }
  return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qianli;
  try {
    const auto result = formats::parse_pickle(fuzz::bytes(data, size), "input",
                                              FileRole::kCheckpoint, {.max_values = 1 << 20});
    fuzz::require(result.bytes_read <= size, "no more is read than there is");
    fuzz::require(walk(result.value, 0) <= (1 << 20) + 1, "the tree has the size it may have");
    fuzz::require(result.value.shown().size() <= 203, "a text for messages is short");
  } catch (const CheckpointError&) {
  }
  return 0;
}
