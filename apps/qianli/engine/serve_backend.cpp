#include "apps/qianli/engine/serve_backend.h"

#include <fmt/core.h>

#include <chrono>
#include <filesystem>

#include "apps/qianli/engine/sampling.h"
#include "qianli/base/error.h"
#include "qianli/infer/text_stream.h"

namespace qianli::app {
namespace {

serve::ModelCard make_card(const infer::Model& model, const ServeArguments& arguments) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto folder = std::filesystem::weakly_canonical(arguments.model.model);
  return {.id = arguments.name.empty() ? folder.filename().string() : arguments.name,
          .created = std::chrono::duration_cast<std::chrono::seconds>(now).count(),
          .context_length = model.context_limit(),
          .vocabulary = model.spec().vocab_size};
}

serve::ModelCard with_adapters(serve::ModelCard card, const std::vector<std::string>& adapters) {
  for (const std::string& given : adapters) {
    const std::string name = split_adapter(given).first;
    if (name.empty() || card.find(name)) {
      throw ConfigError("serve",
                        fmt::format("expected another name for each adapter, got '{}'", name),
                        "--adapter NAME=FOLDER gives one");
    }
    card.adapters.push_back(name);
  }
  return card;
}

// One text on its way from the engine to a client; lives in the engine's listeners.
class Answer {
 public:
  Answer(const infer::Model& model, serve::Work& work, serve::Backend::Sink sink)
      : tokenizer_(model.tokenizer()),
        stream_(tokenizer_, std::move(work.stop)),
        log_probs_(work.top_log_probs >= 0),
        sink_(std::move(sink)) {}

  bool take(const infer::NewToken& token) {
    serve::Piece piece{.text = stream_.push(token.id)};
    if (log_probs_) piece.tokens.push_back(text_of(token));
    if (!piece.text.empty() || log_probs_) sink_(std::move(piece));
    return !stream_.stopped();
  }

  void end(const infer::Generation& generation) {
    serve::Finish finish{.reason = reason_of(generation.reason),
                         .prompt_tokens = generation.prompt_tokens,
                         .cached_tokens = generation.cached_tokens,
                         .new_tokens = static_cast<int64_t>(generation.tokens.size())};
    if (finish.reason == "error") finish.error = what_failed(generation);
    sink_({.text = stream_.finish(), .finish = std::move(finish)});
  }

 private:
  static const char* reason_of(infer::StopReason reason) {
    switch (reason) {
      case infer::StopReason::kEndOfText:
      case infer::StopReason::kListener:
      case infer::StopReason::kChoice:
        return "stop";
      case infer::StopReason::kLength:
      case infer::StopReason::kContext:
        return "length";
      default:
        return "error";
    }
  }

  static std::string what_failed(const infer::Generation& generation) {
    try {
      if (generation.error) std::rethrow_exception(generation.error);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "the request was cancelled";
  }

  std::string text_of(int64_t id) const {
    const auto token = static_cast<int32_t>(id);
    return tokenizer_->decode({&token, 1}, /*skip_special_tokens=*/false);
  }
  serve::TokenText text_of(const infer::NewToken& token) const {
    serve::TokenText text{.text = text_of(token.id), .log_prob = token.log_prob};
    for (const auto& [id, log_prob] : token.top) text.top.emplace_back(text_of(id), log_prob);
    return text;
  }

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  infer::TextStream stream_;
  bool log_probs_;
  serve::Backend::Sink sink_;
};

}  // namespace

EngineBackend::EngineBackend(infer::Model& model, const ServeArguments& arguments)
    : model_(model),
      card_(with_adapters(make_card(model, arguments), arguments.model.adapters)),
      chat_(model, arguments.template_name),
      thread_(model, {.cache_bytes = arguments.cache_bytes,
                      .max_sequences = arguments.max_sequences,
                      .speculate = arguments.model.speculate}) {}

std::vector<int64_t> EngineBackend::encode(const std::string& text) const {
  const auto ids = model_.tokenizer()->encode(text, /*add_special_tokens=*/true);
  if (ids.empty() && model_.tokenizer()->bos_id()) return {*model_.tokenizer()->bos_id()};
  return {ids.begin(), ids.end()};
}

std::vector<int64_t> EngineBackend::encode_chat(const OrderedJson& messages,
                                                const OrderedJson& tools,
                                                const OrderedJson& variables) const {
  return chat_.ids(messages, tools, variables);
}

// Where neither the request nor the model says, OpenAI's default counts: temperature 1.
infer::SamplingOptions EngineBackend::sampling(const serve::Sampling& given) const {
  infer::SamplingOptions options = model_.default_sampling();
  if (options.greedy()) options.temperature = 1.0;
  take_given(given, options);
  options.logit_bias = given.logit_bias;
  return options;
}

uint64_t EngineBackend::start(serve::Work work, Sink sink) {
  infer::Request request{.prompt = std::move(work.prompt),
                         .sampling = sampling(work.sampling),
                         .max_new_tokens = work.max_tokens.value_or(model_.context_limit()),
                         .ignore_eos = work.ignore_eos,
                         .stop_ids = chat_.stop_ids(),
                         .adapter = work.adapter,
                         .top_log_probs = work.top_log_probs};
  for (const std::string& choice : work.choices)
    request.choices.push_back(plain_ids(model_, choice));
  const auto answer = std::make_shared<Answer>(model_, work, std::move(sink));
  return thread_.submit(
      std::move(request), [answer](const infer::NewToken& token) { return answer->take(token); },
      [answer](const infer::Generation& generation) { answer->end(generation); });
}

serve::Load EngineBackend::load() const {
  const infer::Engine::Load load = thread_.load();
  return {.running = load.running,
          .waiting = load.waiting,
          .blocks = load.blocks,
          .blocks_held = load.blocks_held,
          .prompt_tokens = load.prompt_tokens,
          .cached_tokens = load.cached_tokens,
          .generated_tokens = load.generated_tokens,
          .preemptions = load.preemptions,
          .drafted_tokens = load.drafted_tokens,
          .accepted_tokens = load.accepted_tokens};
}

}  // namespace qianli::app
