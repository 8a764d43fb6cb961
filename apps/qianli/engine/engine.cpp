#include "apps/qianli/engine/commands.h"

extern "C" const qianli::app::EngineApi* qianli_engine() {
  using namespace qianli::app;
  static const EngineApi api{.pretrain = run_pretrain,
                             .sft = run_sft,
                             .generate = run_generate,
                             .chat = run_chat,
                             .serve = run_serve,
                             .score = run_score,
                             .compare_logits = run_compare_logits,
                             .doctor = run_doctor,
                             .backends = run_backends};
  return &api;
}
