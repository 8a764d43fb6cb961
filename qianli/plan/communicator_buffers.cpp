#include "qianli/plan/communicator_buffers.h"

#include <cmath>

namespace qianli::plan {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;
constexpr int64_t kDefault = 200 * kMebibyte;  // HCCL's own

}  // namespace

std::map<std::string, int64_t> adaptive_buffers(const MessageSizes& sizes) {
  const auto mebibytes = [&](double tokens, double numbers) {
    return static_cast<int64_t>(std::ceil(tokens * static_cast<double>(sizes.rows * sizes.hidden) *
                                          numbers / static_cast<double>(kMebibyte))) *
           kMebibyte;
  };
  const double tokens = static_cast<double>(sizes.sequence) / static_cast<double>(sizes.context);
  const double part = tokens / static_cast<double>(sizes.tensor);
  std::map<std::string, int64_t> buffers{
      {"tensor", 2 * (sizes.split_tokens ? 1 : 2) * mebibytes(tokens, 1)},
      {"stages", 2 * mebibytes(sizes.split_tokens ? part : tokens, 1)}};
  if (sizes.experts_of_token == 0) return buffers;
  const auto experts =
      static_cast<double>(2 * mebibytes(part, static_cast<double>(sizes.experts_of_token)));
  buffers["experts"] = sizes.expert_factor < 0
                           ? kDefault
                           : static_cast<int64_t>(std::ceil(experts * sizes.expert_factor));
  return buffers;
}

MessageSizes message_sizes(const config::Config& config, const model::ModelSpec& spec) {
  return {.sequence = config.data.sequence_length,
          .context = config.parallel.context,
          .tensor = config.parallel.tensor,
          .split_tokens = config.parallel.sequence,
          .rows = config.train.micro_batch_size,
          .hidden = spec.hidden_size,
          .experts_of_token = spec.moe ? spec.moe->top_k : 0,
          .expert_factor = config.parallel.expert_buffer_factor};
}

}  // namespace qianli::plan
