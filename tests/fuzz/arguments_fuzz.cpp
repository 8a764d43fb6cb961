// The arguments of a Megatron checkpoint from strangers, as JSON: what is accepted is a model whose
// table can be made, in a layout of bounded size.
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/convert/megatron/stored_arguments.h"
#include "qianli/model/parameter_table.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/value_of_json.h"

namespace {

using namespace qianli;
using formats::Value;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::kError);
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const Value args = testing::value_of(parse_json(text, "input", FileRole::kCheckpoint));
    const convert::StoredArguments stored(&args, "input");
    fuzz::require(convert::megatron_ranks(convert::layout_of(stored)).size() <= 100000,
                  "a layout has so many ranks");
    const model::ModelSpec spec = convert::spec_of_arguments(stored, 128);
    fuzz::require(model::parameter_count(spec) > 0, "a model has parameters");
  } catch (const CheckpointError&) {
  }
  return 0;
}
