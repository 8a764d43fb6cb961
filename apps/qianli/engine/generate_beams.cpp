#include "apps/qianli/engine/generate_output.h"
#include "apps/qianli/engine/sampling.h"
#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/infer/beam_search.h"
#include "qianli/infer/text_stream.h"

namespace qianli::app {
namespace {

void check(const SamplingArguments& given) {
  const bool samples = given.temperature || given.top_k || given.top_p || given.min_p ||
                       given.seed || given.presence_penalty != 0 || given.frequency_penalty != 0 ||
                       !given.logit_bias.empty();
  if (!samples) return;
  throw ConfigError("generate", "expected --repetition-penalty alone with --num-beams",
                    "beam search does not sample");
}

std::string text_of(const infer::Model& model, const infer::Beam& beam,
                    const std::vector<std::string>& stop) {
  infer::TextStream stream(model.tokenizer(), stop);
  std::string text;
  for (const int64_t id : beam.tokens) text += stream.push(id);
  return text + stream.finish();
}

}  // namespace

void run_beams(const GenerateArguments& arguments, infer::Model& model) {
  check(arguments.sampling);
  Output output;
  OrderedJson list = OrderedJson::array();
  for (const std::string& prompt : arguments.prompts) {
    const auto ids = prompt_ids(model, prompt, arguments.special_tokens);
    const auto beams =
        infer::beam_search(model, ids,
                           {.num_beams = arguments.num_beams,
                            .length_penalty = arguments.length_penalty,
                            .max_new_tokens = arguments.max_new_tokens,
                            .ignore_eos = arguments.ignore_eos,
                            .repetition_penalty = arguments.sampling.repetition_penalty.value_or(
                                model.default_sampling().repetition_penalty),
                            .adapter = only_adapter(arguments.model)});
    OrderedJson shown = OrderedJson::array();
    for (const infer::Beam& beam : beams) {
      shown.push_back({{"text", text_of(model, beam, arguments.stop)},
                       {"tokens", beam.tokens},
                       {"score", beam.score}});
    }
    if (!arguments.json) {
      output.write_prompt(prompt);
      output.write(shown[0]["text"].get<std::string>() + "\n");
    }
    list.push_back({{"prompt", prompt},
                    {"text", shown[0]["text"]},
                    {"tokens", shown[0]["tokens"]},
                    {"prompt_tokens", ids.size()},
                    {"beams", std::move(shown)}});
    if (stop_signal() != 0) break;
  }
  if (arguments.json) output.write_json(list);
  if (const int signal = stop_signal()) {
    throw Error(static_cast<ExitCode>(128 + signal), "generate",
                "stopped by a signal; the best texts so far were kept", "");
  }
}

}  // namespace qianli::app
