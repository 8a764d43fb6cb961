// The texts that split layers over stages. What is read must be placeable, and the placement holds
// every layer once, in the model's order along the stages.
#include <string_view>

#include "qianli/base/error.h"
#include "qianli/plan/layers.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace qianli;

void place(const plan::LayerSplit& split) {
  const auto placed = plan::place_layers(split);
  int64_t next = 0, embeddings = 0, losses = 0, mtp = 0;
  for (const plan::Place& at : plan::ring_flow(split.stages, split.chunks)) {
    const auto& chunk = placed.at(static_cast<size_t>(at.stage)).at(static_cast<size_t>(at.chunk));
    for (const auto& layer : chunk.layers) fuzz::require(layer.global == next++, "layers in order");
    embeddings += chunk.embedding ? 1 : 0;
    losses += chunk.loss ? 1 : 0;
    mtp += chunk.mtp_layers;
  }
  fuzz::require(next == split.layers && mtp == split.mtp_layers, "all layers");
  fuzz::require(embeddings == 1 && losses == 1, "one embedding, one loss");
}

void place_table(const plan::LayerTable& table) {
  plan::LayerSplit split{.stages = static_cast<int64_t>(table.size()),
                         .chunks = static_cast<int64_t>(table.front().size()),
                         .table = table};
  for (const auto& row : table) {
    for (const int64_t count : row) split.layers += count;
  }
  place(split);
}

template <typename Use>
void use(Use use) {
  try {
    use();
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  use([&] { place_table(plan::parse_layer_list(text)); });
  use([&] { place_table(plan::parse_layer_table(text)); });
  for (const int64_t stages : {1, 2, 4, 7}) use([&] { place(plan::parse_layout(text, stages)); });
  return 0;
}
