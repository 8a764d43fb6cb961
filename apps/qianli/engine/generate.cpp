#include "qianli/infer/generate.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>

#include "apps/qianli/engine/commands.h"
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"

namespace qianli::app {
namespace {

infer::SamplingOptions sampling_options(const GenerateArguments& arguments,
                                        const infer::SamplingOptions& defaults) {
  infer::SamplingOptions options = defaults;
  const bool wants_sampling = arguments.temperature || arguments.top_k || arguments.top_p;
  if (options.greedy() && wants_sampling) options.temperature = 1.0;
  if (arguments.greedy) options.temperature = 0.0;
  if (arguments.temperature) options.temperature = *arguments.temperature;
  if (arguments.top_k) options.top_k = *arguments.top_k;
  if (arguments.top_p) options.top_p = *arguments.top_p;
  if (arguments.repetition_penalty) options.repetition_penalty = *arguments.repetition_penalty;
  if (arguments.seed) options.seed = *arguments.seed;
  options.validate();
  if (options.greedy() && (arguments.seed || arguments.top_k || arguments.top_p)) {
    log::warn("generate", "greedy decoding has no use for --seed, --top-k and --top-p");
  }
  return options;
}

// Text for the user as it appears. write() is false when nobody reads any more (`| head`).
class Output {
 public:
  bool write(std::string_view text) {
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
           std::fflush(stdout) == 0;
  }
  bool write_prompt(const std::string& prompt) {
    return write(terminal_ ? fmt::format("\x1b[2m{}\x1b[0m", prompt) : prompt);
  }

 private:
  bool terminal_ = ::isatty(STDOUT_FILENO) == 1;
};

std::vector<int64_t> prompt_ids(const infer::Model& model, const std::string& prompt,
                                bool special_tokens) {
  const auto& tokenizer = model.tokenizer();
  const auto ids = tokenizer->encode(prompt, special_tokens);
  if (ids.empty() && tokenizer->bos_id()) return {*tokenizer->bos_id()};
  return {ids.begin(), ids.end()};
}

OrderedJson to_json(const std::string& prompt, const std::string& text,
                    const infer::Generation& generation) {
  return {{"prompt", prompt},
          {"text", text},
          {"tokens", generation.tokens},
          {"stopped_by", infer::to_string(generation.reason)},
          {"prompt_tokens", generation.prompt_tokens},
          {"prompt_tokens_per_second", generation.prompt_tokens_per_second()},
          {"tokens_per_second_decode", generation.decode_tokens_per_second()}};
}

void say_speed(const infer::Generation& generation) {
  log::say(fmt::format("{} prompt tokens at {:.1f} tokens/s, {} new tokens at {:.1f} tokens/s ({})",
                       generation.prompt_tokens, generation.prompt_tokens_per_second(),
                       generation.tokens.size(), generation.decode_tokens_per_second(),
                       infer::to_string(generation.reason)));
}

class Command {
 public:
  explicit Command(const GenerateArguments& arguments)
      : arguments_(arguments),
        model_(infer::Model::open(arguments.model, {arguments.precision, arguments.device})) {
    options_ = {.sampling = sampling_options(arguments, model_->default_sampling()),
                .max_new_tokens = arguments.max_new_tokens,
                .ignore_eos = arguments.ignore_eos};
    model_->tokenizer();  // says what is missing before anything is printed
    log::info("model", "{}", model_->summary());
  }

  void run() {
    OrderedJson answers = OrderedJson::array();
    for (const std::string& prompt : arguments_.prompts) {
      answers.push_back(answer(prompt));
      if (stop_signal() != 0 || !reader_is_there_) break;
    }
    if (arguments_.json) {
      const OrderedJson& shown = arguments_.prompts.size() == 1 ? answers[0] : answers;
      output_.write(shown.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
    }
    if (const int signal = stop_signal()) {
      throw Error(static_cast<ExitCode>(128 + signal), "generate",
                  fmt::format("stopped by signal {}; the text so far was kept", signal), "");
    }
  }

 private:
  OrderedJson answer(const std::string& prompt) {
    const auto ids = prompt_ids(*model_, prompt, arguments_.special_tokens);
    text::StreamingDecoder decoder(model_->tokenizer(), {.skip_special_tokens = true});
    std::string text;
    const auto take = [&](const std::string& piece) {
      text += piece;
      if (!arguments_.json && !piece.empty()) {
        reader_is_there_ = reader_is_there_ && output_.write(piece);
      }
      return reader_is_there_;
    };
    if (!arguments_.json) reader_is_there_ = output_.write_prompt(prompt);
    const infer::Generation generation = infer::generate(*model_, ids, options_, [&](int64_t id) {
      return take(decoder.push(static_cast<int32_t>(id)));
    });
    take(decoder.finish());
    if (!arguments_.json) reader_is_there_ = reader_is_there_ && output_.write("\n");
    say_speed(generation);
    return to_json(prompt, text, generation);
  }

  const GenerateArguments& arguments_;
  std::unique_ptr<infer::Model> model_;
  infer::GenerateOptions options_;
  Output output_;
  bool reader_is_there_ = true;
};

}  // namespace

void run_generate(const GenerateArguments& arguments) { Command(arguments).run(); }

}  // namespace qianli::app
