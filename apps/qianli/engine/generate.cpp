#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <deque>

#include "apps/qianli/engine/commands.h"
#include "apps/qianli/engine/generate_output.h"
#include "apps/qianli/engine/sampling.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/infer/engine.h"
#include "qianli/infer/text_stream.h"

namespace qianli::app {
namespace {

OrderedJson log_probs_json(const infer::Model& model, const std::vector<infer::NewToken>& tokens) {
  const auto text_of = [&](int64_t id) {
    const auto token = static_cast<int32_t>(id);
    return model.tokenizer()->decode({&token, 1}, /*skip_special_tokens=*/false);
  };
  OrderedJson list = OrderedJson::array();
  for (const infer::NewToken& token : tokens) {
    OrderedJson top = OrderedJson::array();
    for (const auto& [id, log_prob] : token.top)
      top.push_back({{"id", id}, {"token", text_of(id)}, {"log_prob", log_prob}});
    list.push_back({{"id", token.id},
                    {"token", text_of(token.id)},
                    {"log_prob", token.log_prob},
                    {"top", std::move(top)}});
  }
  return list;
}

// One prompt and what became of it.
struct Answer {
  std::string prompt, text;
  infer::TextStream stream;
  infer::Engine::Id id = 0;
  std::vector<infer::NewToken> tokens;  // where log-probabilities were asked for
  infer::Generation generation;
  bool done = false;
};

class Run {
 public:
  Run(const GenerateArguments& arguments, infer::Model& model)
      : arguments_(arguments),
        model_(model),
        sampling_(sampling_options(arguments.sampling, model.default_sampling())),
        engine_(model, {.max_sequences = std::min<int64_t>(
                            arguments.batch, static_cast<int64_t>(arguments.prompts.size())),
                        .speculate = arguments.model.speculate}) {}

  void run() {
    submit_all();
    bool worked = true;
    while (worked && printed_ < answers_.size()) {
      if (stop_signal() != 0 || !reader_is_there_) cancel_all();
      worked = engine_.step();
      print_complete();
    }
    if (arguments_.json) print_json();
    if (answers_.size() > 1) say_total();
    if (const int signal = stop_signal()) {
      throw Error(static_cast<ExitCode>(128 + signal), "generate",
                  fmt::format("stopped by signal {}; the text so far was kept", signal), "");
    }
  }

 private:
  void submit_all() {
    std::vector<std::vector<int64_t>> choices;
    for (const std::string& choice : arguments_.choices)
      choices.push_back(plain_ids(model_, choice));
    for (const std::string& prompt : arguments_.prompts) {
      Answer& answer = answers_.emplace_back(Answer{
          .prompt = prompt, .stream = infer::TextStream(model_.tokenizer(), arguments_.stop)});
      answer.id = engine_.submit(
          {.prompt = prompt_ids(model_, prompt, arguments_.special_tokens),
           .sampling = sampling_,
           .max_new_tokens = arguments_.max_new_tokens,
           .ignore_eos = arguments_.ignore_eos,
           .choices = choices,
           .adapter = only_adapter(arguments_.model),
           .top_log_probs = arguments_.json ? arguments_.log_probs : -1},
          [this, &answer](const infer::NewToken& token) { return take(answer, token); },
          [this, &answer](const infer::Generation& generation) { finish(answer, generation); });
    }
    if (!arguments_.json) begin(answers_[0]);
  }

  void cancel_all() {
    for (const Answer& answer : answers_) {
      if (!answer.done) engine_.cancel(answer.id);
    }
  }

  bool is_shown(const Answer& answer) const {
    return !arguments_.json && &answer == &answers_[printed_];
  }
  void show(const std::string& text) {
    if (!text.empty()) reader_is_there_ = reader_is_there_ && output_.write(text);
  }
  void begin(const Answer& answer) {
    reader_is_there_ = reader_is_there_ && output_.write_prompt(answer.prompt);
  }

  bool take(Answer& answer, const infer::NewToken& token) {
    if (arguments_.log_probs >= 0) answer.tokens.push_back(token);
    const std::string piece = answer.stream.push(token.id);
    answer.text += piece;
    if (is_shown(answer)) show(piece);
    return !answer.stream.stopped() && reader_is_there_;
  }

  void finish(Answer& answer, const infer::Generation& generation) {
    const std::string rest = answer.stream.finish();
    answer.text += rest;
    if (is_shown(answer)) show(rest);
    answer.generation = generation;
    if (generation.reason == infer::StopReason::kCancelled)
      answer.generation.reason = infer::StopReason::kSignal;
    answer.done = true;
  }

  // Goes on to the first that is not complete; what it has is shown at once.
  void print_complete() {
    while (printed_ < answers_.size() && answers_[printed_].done) {
      const infer::Generation& generation = answers_[printed_].generation;
      if (generation.error) std::rethrow_exception(generation.error);
      if (!arguments_.json) show("\n");
      say_speed(generation);
      if (++printed_ == answers_.size() || arguments_.json) continue;
      if (stop_signal() != 0 && answers_[printed_].text.empty()) continue;
      begin(answers_[printed_]);
      show(answers_[printed_].text);
    }
  }

  static void say_speed(const infer::Generation& generation) {
    log::say(fmt::format(
        "{} prompt tokens at {:.1f} tokens/s, {} new tokens at {:.1f} tokens/s ({})",
        generation.prompt_tokens, generation.prompt_tokens_per_second(), generation.tokens.size(),
        generation.decode_tokens_per_second(), infer::to_string(generation.reason)));
    if (generation.drafted_tokens > 0) {
      log::say(fmt::format("{} of {} drafted tokens accepted", generation.accepted_tokens,
                           generation.drafted_tokens));
    }
  }
  void say_total() const {
    const auto load = engine_.load();
    log::say(fmt::format("{} prompts: {} prompt tokens, {} new tokens in {} passes",
                         answers_.size(), load.prompt_tokens, load.generated_tokens, load.passes));
  }

  void print_json() {
    OrderedJson list = OrderedJson::array();
    for (const Answer& answer : answers_) {
      const infer::Generation& generation = answer.generation;
      list.push_back({{"prompt", answer.prompt},
                      {"text", answer.text},
                      {"tokens", generation.tokens},
                      {"stopped_by", infer::to_string(generation.reason)},
                      {"prompt_tokens", generation.prompt_tokens},
                      {"prompt_tokens_per_second", generation.prompt_tokens_per_second()},
                      {"tokens_per_second_decode", generation.decode_tokens_per_second()}});
      if (arguments_.model.speculate > 0) {
        list.back()["drafted_tokens"] = generation.drafted_tokens;
        list.back()["accepted_tokens"] = generation.accepted_tokens;
      }
      if (arguments_.log_probs >= 0)
        list.back()["log_probs"] = log_probs_json(model_, answer.tokens);
    }
    output_.write_json(list);
  }

  const GenerateArguments& arguments_;
  infer::Model& model_;
  infer::SamplingOptions sampling_;
  infer::Engine engine_;
  std::deque<Answer> answers_;  // the listeners keep references
  size_t printed_ = 0;          // the first that is not printed to its end
  Output output_;
  bool reader_is_there_ = true;
};

}  // namespace

Output::Output() : terminal_(::isatty(STDOUT_FILENO) == 1) {}

bool Output::write(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

bool Output::write_prompt(const std::string& prompt) {
  return write(terminal_ ? fmt::format("\x1b[2m{}\x1b[0m", prompt) : prompt);
}

// A list of one is its entry.
bool Output::write_json(const OrderedJson& json) {
  const OrderedJson& shown = json.size() == 1 ? json[0] : json;
  return write(shown.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
}

std::vector<int64_t> prompt_ids(const infer::Model& model, const std::string& prompt,
                                bool special_tokens) {
  const auto& tokenizer = model.tokenizer();
  const auto ids = tokenizer->encode(prompt, special_tokens);
  if (ids.empty() && tokenizer->bos_id()) return {*tokenizer->bos_id()};
  return {ids.begin(), ids.end()};
}

void run_generate(const GenerateArguments& arguments) {
  const auto model = open_with_tokenizer(arguments.model);
  if (arguments.num_beams > 1) return run_beams(arguments, *model);
  if (arguments.log_probs >= 0 && !arguments.json)
    log::warn("generate", "--log-probs has no effect without --json");
  Run(arguments, *model).run();
}

}  // namespace qianli::app
