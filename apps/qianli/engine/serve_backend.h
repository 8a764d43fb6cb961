// The server's backend: an engine in its thread.
#pragma once

#include "apps/qianli/engine.h"
#include "qianli/infer/chat_prompt.h"
#include "qianli/infer/engine_thread.h"
#include "qianli/serve/backend.h"

namespace qianli::app {

class EngineBackend : public serve::Backend {
 public:
  EngineBackend(infer::Model& model, const ServeArguments& arguments);

  const serve::ModelCard& card() const override { return card_; }
  std::vector<int64_t> encode(const std::string& text) const override;
  std::vector<int64_t> encode_chat(const OrderedJson& messages, const OrderedJson& tools,
                                   const OrderedJson& variables) const override;
  uint64_t start(serve::Work work, Sink sink) override;
  void cancel(uint64_t id) override { thread_.cancel(id); }
  serve::Load load() const override;

 private:
  infer::SamplingOptions sampling(const serve::Sampling& given) const;

  infer::Model& model_;
  serve::ModelCard card_;
  infer::ChatPrompt chat_;
  infer::EngineThread thread_;
};

}  // namespace qianli::app
