#include "qianli/infer/engine.h"

#include <c10/core/InferenceMode.h>
#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/progress.h"
#include "qianli/base/threads.h"
#include "qianli/infer/engine_active.h"
#include "qianli/nn/attached_adapters.h"

namespace qianli::infer {
namespace {

bool has_recurrent_states(const model::ModelSpec& spec, at::ScalarType dtype) {
  return nn::KvCache::fixed_bytes(spec, dtype) > 0;
}

int64_t heads_that_draft(const Model& model, const EngineOptions& options) {
  if (options.speculate == 0) return 0;
  const model::ModelSpec& spec = model.spec();
  if (spec.mtp.num_layers == 0) {
    throw ConfigError("speculate",
                      "expected a model with heads for multi-token prediction, got one without",
                      "leave --speculate out");
  }
  if (has_recurrent_states(spec, model.dtype())) {
    throw ConfigError("speculate",
                      "expected a model that keeps keys of each token, got one with states that "
                      "cannot go back to before a token",
                      "leave --speculate out");
  }
  return std::min(options.speculate, spec.mtp.num_layers);
}

// The widest window where every layer with attention has one, else 0.
int64_t widest_window(const model::ModelSpec& spec, int64_t ahead_layers) {
  int64_t widest = 0;
  for (int64_t l = 0; l < spec.num_layers + ahead_layers; ++l) {
    const model::LayerSpec layer = spec.layer(l);
    if (!layer.has_attention()) continue;
    if (layer.window == 0 || spec.latent_attention || layer.is_compressed()) return 0;
    widest = std::max(widest, layer.window);
  }
  return widest;
}

int64_t blocks_for(const Model& model, const EngineOptions& options) {
  if (options.blocks > 0) return options.blocks;
  const int64_t row =
      nn::KvCache::elements_per_token(model.spec(), heads_that_draft(model, options)) *
      static_cast<int64_t>(c10::elementSize(model.dtype()));
  const int64_t of_context = (model.context_limit() + options.block_size - 1) / options.block_size;
  const int64_t wanted = options.max_sequences * of_context;
  if (row == 0) return wanted;  // recurrent states only: blocks hold nothing
  const uint64_t bytes =
      options.cache_bytes > 0 ? options.cache_bytes : available_memory_bytes() / 3;
  const auto affordable = static_cast<int64_t>(bytes) / (row * options.block_size);
  if (affordable < 1) {
    throw MemoryError("kv_cache", fmt::format("expected memory for {} tokens, got {}",
                                              options.block_size, human_bytes(bytes)));
  }
  return std::min(wanted, affordable);
}

double rate(int64_t count, double seconds) {
  return count > 0 && seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

}  // namespace

void check_prompt(const Model& model, std::span<const int64_t> prompt) {
  if (prompt.empty())
    throw DataError("generate", "expected a prompt of at least one token, got none");
  for (const int64_t id : prompt) {
    if (id >= 0 && id < model.spec().vocab_size) continue;
    throw DataError("generate", fmt::format("expected ids below the vocabulary of {}, got {}",
                                            model.spec().vocab_size, id));
  }
  const auto length = static_cast<int64_t>(prompt.size());
  if (length < model.context_limit()) return;
  throw DataError("generate",
                  fmt::format("expected a prompt below the model's context of {} tokens, got {}",
                              model.context_limit(), length),
                  "shorten the prompt");
}

void check_adapter(Model& model, int64_t adapter) {
  const int64_t attached = model.parameters().attached().size();
  if (adapter >= nn::kNoAdapter && adapter < attached) return;
  throw ConfigError("adapter",
                    fmt::format("expected one of {} attached, got number {}", attached, adapter));
}

const char* to_string(StopReason reason) {
  switch (reason) {
    case StopReason::kEndOfText:
      return "end_of_text";
    case StopReason::kLength:
      return "length";
    case StopReason::kContext:
      return "context";
    case StopReason::kSignal:
      return "signal";
    case StopReason::kListener:
      return "stopped";
    case StopReason::kChoice:
      return "choice";
    case StopReason::kCancelled:
      return "cancelled";
    case StopReason::kFailed:
      return "failed";
  }
  return "";
}

double Generation::prompt_tokens_per_second() const { return rate(prompt_tokens, prompt_seconds); }
double Generation::decode_tokens_per_second() const { return rate(decode_steps, decode_seconds); }

Engine::Engine(Model& model, const EngineOptions& options)
    : model_(model),
      options_(options),
      pool_(blocks_for(model, options), options.block_size),
      cache_(
          model.spec(),
          {.blocks = pool_.size(),
           .block_size = options.block_size,
           .slots = has_recurrent_states(model.spec(), model.dtype()) ? options.max_sequences : 1,
           .ahead_layers = heads_that_draft(model, options)},
          model.dtype(), model.device()),
      heads_(heads_that_draft(model, options)),
      has_states_(has_recurrent_states(model.spec(), model.dtype())),
      window_(widest_window(model.spec(), heads_)) {
  for (int64_t slot = cache_.sizes().slots; slot-- > 0;) free_slots_.push_back(slot);
  if (has_states_) options_.share_prefixes = false;
  load_.blocks = pool_.size();
}

Engine::~Engine() = default;

void Engine::check(const Request& request) const {
  check_prompt(model_, request.prompt);
  const Sampler sampler(request.sampling, model_.spec().vocab_size);  // refuses what it cannot do
  check_adapter(model_, request.adapter);
  for (const auto& choice : request.choices) {
    if (choice.empty()) throw DataError("generate", "expected choices of at least one token");
  }
  const auto needed = static_cast<int64_t>(request.prompt.size()) + 1;
  if (needed > pool_.size() * pool_.block_size()) {
    throw MemoryError("kv_cache",
                      fmt::format("expected a prompt of at most {} tokens, got {}",
                                  pool_.size() * pool_.block_size() - 1, request.prompt.size()),
                      "give the cache more memory or shorten the prompt");
  }
}

Engine::Id Engine::submit(Request request, TokenListener on_token, EndListener on_end) {
  check(request);
  auto active = std::make_unique<Active>(next_id_, std::move(request), model_.spec().vocab_size);
  active->on_token = std::move(on_token);
  active->on_end = std::move(on_end);
  if (active->request.max_new_tokens <= 0) active->ended = StopReason::kLength;
  waiting_.push_back(std::move(active));
  return next_id_++;
}

void Engine::cancel(Id id) {
  for (Actives* list : {&waiting_, &running_}) {
    for (const auto& active : *list) {
      if (active->id == id && !active->ended) active->ended = StopReason::kCancelled;
    }
  }
}

bool Engine::step() {
  const c10::InferenceMode inference;
  const bool had_work = !waiting_.empty() || !running_.empty();
  sweep();
  std::vector<Segment> together;
  std::vector<std::vector<Segment>> passes;
  for (const Segment& segment : schedule()) {
    if (rotates_by_length(*segment.active, segment.count)) {
      passes.push_back({segment});
    } else {
      together.push_back(segment);
    }
  }
  if (!together.empty()) passes.push_back(std::move(together));
  for (auto& pass : passes) run(std::move(pass));
  sweep();
  return had_work;
}

void Engine::end(Active& active, StopReason reason) {
  if (!active.ended) active.ended = reason;
}

// Takes out what has ended.
void Engine::sweep() {
  for (Actives* list : {&waiting_, &running_}) {
    for (size_t i = 0; i < list->size();) {
      if (!(*list)[i]->ended) {
        ++i;
        continue;
      }
      const std::unique_ptr<Active> done = std::move((*list)[i]);
      list->erase(list->begin() + static_cast<ptrdiff_t>(i));
      let_go(*done);
      done->generation.reason = *done->ended;
      if (done->on_end) done->on_end(done->generation);
    }
  }
}

Engine::Load Engine::load() const {
  Load load = load_;
  load.waiting = static_cast<int64_t>(waiting_.size());
  load.running = static_cast<int64_t>(running_.size());
  load.blocks_held = pool_.size() - pool_.available();
  return load;
}

}  // namespace qianli::infer
