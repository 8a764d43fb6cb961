#include "apps/qianli/model_options.h"

namespace qianli::app {

void add_model_options(CLI::App& command, ModelArguments& arguments) {
  command.add_option("MODEL", arguments.model, "Hugging Face folder, checkpoint or GGUF file")
      ->required();
  command
      .add_option("--precision", arguments.precision,
                  "auto: fp32, or bf16 where the weights and the device are")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "fp64"}))
      ->capture_default_str();
  command.add_option("--device", arguments.device)
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  add_quantize_option(command, arguments.quantize);
}

void add_quantize_option(CLI::App& command, std::string& quantize) {
  command
      .add_option("--quantize", quantize,
                  "Compute with matrices in few bits, on the CPU: q8_0 (8 bits and a scale for 32 "
                  "weights), or q4_0 (4 bits; the output layer in q8_0)")
      ->check(CLI::IsMember({"none", "q8_0", "q4_0"}))
      ->capture_default_str();
}

void add_adapter_option(CLI::App& command, std::vector<std::string>& adapters, bool named) {
  auto* option = command.add_option(
      "--adapter", adapters,
      named ? "NAME=FOLDER: an adapter of low rank as a model of its own; may be given several "
              "times. FOLDER as PEFT writes it, or a run or checkpoint that trained one"
            : "An adapter of low rank beside the weights: a folder as PEFT writes it, or a run or "
              "checkpoint that trained one");
  option->expected(1)->allow_extra_args(false);
  if (named) option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

CLI::Option* add_speculate_option(CLI::App& command, ModelArguments& arguments) {
  return command
      .add_option("--speculate", arguments.speculate,
                  "Tokens that the model's heads for multi-token prediction draft at a time; the "
                  "text stays the same. 0: none")
      ->check(CLI::Range(0, 7))
      ->capture_default_str();
}

void add_sampling_options(CLI::App& command, SamplingArguments& arguments) {
  auto* greedy = command.add_flag("--greedy", arguments.greedy,
                                  "Always the most probable token (the default, unless the model's "
                                  "generation_config.json samples)");
  command.add_option("--temperature", arguments.temperature, "Sample; 0 is greedy")
      ->excludes(greedy);
  command.add_option("--top-k", arguments.top_k, "Sample among the K most probable tokens")
      ->excludes(greedy);
  command
      .add_option("--top-p", arguments.top_p,
                  "Sample among the fewest tokens with this probability together")
      ->excludes(greedy);
  command
      .add_option("--min-p", arguments.min_p,
                  "Sample among tokens with at least this share of the best one's probability")
      ->excludes(greedy);
  command.add_option("--repetition-penalty", arguments.repetition_penalty,
                     "Above 1: tokens already seen become less probable");
  command.add_option("--presence-penalty", arguments.presence_penalty,
                     "From -2 to 2: off the logit of every token generated so far");
  command.add_option("--frequency-penalty", arguments.frequency_penalty,
                     "From -2 to 2: the same, as often as it was generated");
  command
      .add_option("--logit-bias", arguments.logit_bias,
                  "ID=BIAS: added to the logit of a token; may be given several times")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--seed", arguments.seed, "Of the sampling: the same seed, the same text")
      ->check(CLI::NonNegativeNumber)  // else -1 becomes the largest seed
      ->excludes(greedy);
}

}  // namespace qianli::app
