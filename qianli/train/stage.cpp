#include "qianli/train/stage.h"

namespace qianli::train {
namespace {

// Units that the first and the last stage hold: tied weights, or all that multi-token prediction
// embeds with.
nn::Units shared_units(const plan::Stages& stages, const model::ModelSpec& spec,
                       const nn::ParameterSet& parameters) {
  if (!stages.shares_embedding(spec)) return {};
  return parameters.units_with(spec.mtp.num_layers > 0 ? "embedding."
                                                       : "embedding.word_embeddings.weight");
}

}  // namespace

Chunks build_chunks(const model::ModelSpec& spec, nn::ParameterSet& parameters,
                    const Ranks& ranks) {
  Chunks chunks;
  for (const plan::ChunkLayers& part : ranks.part.chunks)
    chunks.push_back(std::make_unique<nn::Decoder>(spec, parameters, part, ranks.parallel));
  return chunks;
}

std::vector<nn::Decoder*> pointers(const Chunks& chunks) {
  std::vector<nn::Decoder*> pointers;
  for (const auto& chunk : chunks) pointers.push_back(chunk.get());
  return pointers;
}

StepRanks step_ranks(const Ranks& ranks) {
  return {.replicas = ranks.replicas,
          .stages = ranks.stages,
          .pipeline = ranks.pipeline,
          .sharers = ranks.embedding,
          .everyone = ranks.all,
          .counts = ranks.parallel.tensor.rank() == 0,
          .samples = ranks.samples.count};
}

StepOptions step_options(const plan::Stages& stages, const config::ParallelConfig& parallel,
                         const config::OptimConfig& optim, const model::ModelSpec& spec,
                         const nn::ParameterSet& parameters) {
  return {.optim = optim,
          .schedule = stages.schedule,
          .slicing = plan::configured_slices(parallel, spec),
          .shared = shared_units(stages, spec, parameters)};
}

}  // namespace qianli::train
