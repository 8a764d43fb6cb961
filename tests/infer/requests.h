// Requests run by an engine, and one by one.
#pragma once

#include <cstdint>
#include <vector>

#include "qianli/infer/engine.h"
#include "qianli/infer/generate.h"

namespace qianli::testing {

// All of them submitted at once; the results in their order.
inline std::vector<infer::Generation> run_all(infer::Engine& engine,
                                              const std::vector<infer::Request>& requests) {
  std::vector<infer::Generation> results(requests.size());
  for (size_t i = 0; i < requests.size(); ++i)
    engine.submit(requests[i], {}, [&results, i](const infer::Generation& g) { results[i] = g; });
  while (engine.step()) {
  }
  return results;
}

// The tokens of a request without an engine.
inline std::vector<int64_t> alone(infer::Model& model, const infer::Request& request) {
  return generate(model, request.prompt,
                  {.sampling = request.sampling,
                   .max_new_tokens = request.max_new_tokens,
                   .ignore_eos = request.ignore_eos})
      .tokens;
}

}  // namespace qianli::testing
