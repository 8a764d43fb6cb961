#include "qianli/infer/generate.h"

#include <algorithm>

#include "qianli/base/stop.h"
#include "qianli/infer/engine.h"

namespace qianli::infer {

Generation generate(Model& model, std::span<const int64_t> prompt, const GenerateOptions& options,
                    const std::function<bool(int64_t id)>& listener) {
  constexpr int64_t kBlockSize = 32;
  const auto length = static_cast<int64_t>(prompt.size());
  const int64_t room =
      std::max<int64_t>(0, std::min(options.max_new_tokens, model.context_limit() - length));
  Engine engine(model, {.block_size = kBlockSize,
                        .blocks = (length + room) / kBlockSize + 1,
                        .max_sequences = 1,
                        .tokens_at_once = options.prefill_chunk,
                        .share_prefixes = false,
                        .speculate = options.speculate});
  Generation result;
  bool done = false;
  const auto id = engine.submit(
      {.prompt = {prompt.begin(), prompt.end()},
       .sampling = options.sampling,
       .max_new_tokens = options.max_new_tokens,
       .ignore_eos = options.ignore_eos,
       .adapter = options.adapter},
      [&](const NewToken& token) { return !listener || listener(token.id); },
      [&](const Generation& generation) {
        result = generation;
        done = true;
      });
  while (!done) {
    if (stop_signal() != 0) engine.cancel(id);
    engine.step();
  }
  if (result.error) std::rethrow_exception(result.error);
  if (result.reason == StopReason::kCancelled) result.reason = StopReason::kSignal;
  return result;
}

}  // namespace qianli::infer
