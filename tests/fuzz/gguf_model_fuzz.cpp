// The front of a GGUF file as a model. What is accepted has a count of parameters, is told by keys
// of its own again, and its tensors cover its parameters or are refused.
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/convert/gguf/spec.h"
#include "qianli/convert/gguf/tensors.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace qianli;

constexpr int64_t kFewLayers = 40, kFewExperts = 20;

void check(const model::ModelSpec& spec, const std::function<bool(const std::string&)>& has) {
  fuzz::require(model::parameter_count(spec) > 0, "a model has parameters");
  const convert::GgufArchitecture& architecture = convert::gguf_architecture_of(spec);
  const auto told = convert::as_gguf_tells(spec, architecture);
  fuzz::require(!convert::keys_of_spec(told, architecture).values().empty(), "a model has keys");
  if (spec.num_layers + spec.mtp.num_layers > kFewLayers) return;
  if (spec.num_attention_heads > kFewLayers || (spec.moe && spec.moe->num_experts > kFewExperts)) {
    return;
  }
  const auto table = model::parameter_table(spec);
  convert::check_cover(table, convert::gguf_tensors(spec, table, architecture, has), "input");
}

void read(std::span<const std::byte> bytes) {
  const auto contents = formats::parse_gguf(bytes, "input", FileRole::kCheckpoint);
  std::map<std::string, const formats::GgufTensor*, std::less<>> tensors;
  for (const auto& tensor : contents.tensors) tensors.emplace(tensor.spec.name, &tensor);
  const auto has = [&](const std::string& name) { return tensors.contains(name); };
  const convert::GgufKeys keys(contents.metadata, "input");
  check(convert::read_gguf_spec({.keys = keys,
                                 .has = has,
                                 .floats =
                                     [&](const std::string& name) {
                                       return std::vector<float>(tensors.at(name)->bytes.size() / 4,
                                                                 1.5f);
                                     },
                                 .rows = [&](const std::string& name) -> int64_t {
                                   return has(name) ? formats::num_rows(tensors.at(name)->spec) : 0;
                                 }}),
        has);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool quiet = [] {
    log::set_level(log::Level::kError);
    return true;
  }();
  (void)quiet;
  try {
    read(fuzz::bytes(data, size));
  } catch (const Error&) {
  }
  return 0;
}
