#include "qianli/train/stage.h"

namespace qianli::train {
namespace {

// Parameters that the first and the last stage hold, in the order of the table: tied weights, and
// all that multi-token prediction embeds with.
std::vector<size_t> shared_parameters(const plan::Stages& stages, const model::ModelSpec& spec,
                                      const nn::ParameterSet& parameters) {
  std::vector<size_t> shared;
  if (!stages.shares_embedding(spec)) return shared;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters.entry(i).name;
    const bool is_embedding = name.starts_with("embedding.");
    if (spec.mtp.num_layers > 0 ? is_embedding : name == "embedding.word_embeddings.weight")
      shared.push_back(i);
  }
  return shared;
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
          .counts = ranks.parallel.tensor.rank() == 0};
}

StepOptions step_options(const plan::Stages& stages, const config::ParallelConfig& parallel,
                         const config::OptimConfig& optim, const model::ModelSpec& spec,
                         const nn::ParameterSet& parameters) {
  return {.optim = optim,
          .overlap = parallel.overlap_grad_reduce,
          .schedule = stages.schedule,
          .slicing = plan::configured_slices(parallel, spec),
          .shared = shared_parameters(stages, spec, parameters)};
}

}  // namespace qianli::train
