// What the command line says of itself, and to whoever mistypes.
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

using HelpTest = Workshop;

struct Command {
  std::vector<std::string> words;
  std::vector<std::string> mentions;
};

TEST_F(HelpTest, EveryCommandDescribesItsOptions) {
  const Command commands[] = {
      {{},
       {"pretrain", "generate", "score", "config", "presets", "data", "tokenizer", "plan",
        "convert", "compare", "backends", "doctor"}},
      {{"pretrain"}, {"CONFIG", "OVERRIDES", "config explain"}},
      {{"generate"},
       {"MODEL",
        "--prompt",
        "--prompt-file",
        "--max-new-tokens",
        "--greedy",
        "--temperature",
        "--top-k",
        "--top-p",
        "--seed",
        "--precision",
        "--device",
        "--json",
        "--prompt-lines",
        "--num-beams",
        "--length-penalty",
        "--stop",
        "--choices",
        "--logit-bias",
        "--min-p",
        "--presence-penalty",
        "--frequency-penalty",
        "--log-probs",
        "--batch"}},
      {{"chat"},
       {"MODEL", "--system", "--template", "--load", "--history-turns", "--show-thinking",
        "--set"}},
      {{"serve"},
       {"MODEL", "--host", "--port", "--api-key", "--allow-anyone", "--max-sequences",
        "--max-waiting", "--max-tokens", "--cache-gb", "--drain-seconds", "--template", "--name"}},
      {{"score"}, {"MODEL", "--tokens", "--logits", "--precision", "--device", "--json"}},
      {{"config"}, {"explain", "show", "schema", "docs"}},
      {{"config", "explain"}, {"KEY", "--json"}},
      {{"config", "show"}, {"CONFIG", "OVERRIDES", "--json"}},
      {{"presets"}, {"NAME", "--json"}},
      {{"data"}, {"prepare", "inspect"}},
      {{"data", "prepare"},
       {"INPUT", "--tokenizer", "--output", "--key", "--separator", "--threads", "--json"}},
      {{"data", "inspect"},
       {"PATH", "--tokenizer", "--sequence-length", "--sample", "--split", "--json"}},
      {{"tokenizer"}, {"train", "encode", "decode", "inspect"}},
      {{"tokenizer", "train"}, {"input", "--vocab-size", "--output", "--special", "--json"}},
      {{"tokenizer", "encode"}, {"model", "--text", "--input", "--jsonl", "--json"}},
      {{"tokenizer", "decode"}, {"model", "--ids", "--input", "--jsonl", "--json"}},
      {{"compare"}, {"A", "B", "--tolerance", "--limit", "--weights-only", "--config", "--json"}},
      {{"plan"}, {"CONFIG", "OVERRIDES", "--ranks", "--draw-schedule", "--json", "schedule"}},
      {{"plan", "schedule"},
       {"--kind", "--stages", "--microbatches", "--chunks", "--group", "--slices", "--recompute",
        "--merge", "--detach", "--times", "--messages", "--draw", "--json"}},
      {{"launch"},
       {"-- COMMAND", "--nproc", "--nnodes", "--rdzv", "--max-restarts", "--worker_num"}},
      {{"backends"}, {"--json"}},
      {{"doctor"}, {"--json"}},
  };
  for (const auto& command : commands) {
    auto words = command.words;
    words.push_back("--help");
    const Result result = qianli(words);
    SCOPED_TRACE(result.out);
    EXPECT_EQ(result.code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    for (const auto& word : command.mentions)
      EXPECT_NE(result.out.find(word), std::string::npos) << word;
  }
}

TEST_F(HelpTest, MistypedNamesGetASuggestion) {
  const Command mistakes[] = {
      {{"pretran", "tiny.yaml"}, {"'pretran'", "did you mean 'pretrain'"}},
      {{"tokenizer", "enkode"}, {"'enkode'", "did you mean 'encode'"}},
      {{"data", "prepar"}, {"'prepar'", "did you mean 'prepare'"}},
      {{"generate", "tokenizer", "--promt", "x"}, {"'--promt'", "did you mean '--prompt'"}},
      {{"score", "tokenizer", "--token=x"}, {"'--token'", "did you mean '--tokens'"}},
      {{"tokenizer", "encode", "tokenizer", "--txt", "x"}, {"'--txt'", "did you mean '--text'"}},
      {{"plan", "shedule"}, {"'shedule'", "did you mean 'schedule'"}},
      {{"plan", "tiny.yaml", "--draw-shedule", "x"}, {"did you mean '--draw-schedule'"}},
      {{"tokenizer", "train", "a", "--special", "--vocab-sise", "b", "--vocab-sise", "5"},
       {"'--vocab-sise'", "did you mean '--vocab-size'"}},
      {{"config", "explain", "optim.lrr"}, {"optim.lrr", "did you mean", "optim.lr"}},
      {{"config", "show", "tiny.yaml", "optim.lrr=1"}, {"optim.lrr", "did you mean 'optim.lr'"}},
      {{"config", "show", "tiny.yaml", "optm.lr=1"}, {"optm.lr", "did you mean 'optim.lr'"}},
      {{"config", "show", "tiny.yaml", "precision=bf61"},
       {"precision", "bf61", "did you mean bf16"}},
      {{"presets", "lama-tiny"}, {"lama-tiny", "did you mean 'llama-tiny'"}},
  };
  for (const auto& mistake : mistakes) expect_failure(qianli(mistake.words), 2, mistake.mentions);
}

TEST_F(HelpTest, IncompleteCommandLinesAreUsageErrors) {
  expect_failure(qianli({}), 2, {"[usage]", "--help"});
  expect_failure(qianli({"data"}), 2, {"[usage]", "qianli data --help"});
  expect_failure(qianli({"tokenizer", "train", "text.txt", "--output", "t"}), 2,
                 {"--vocab-size", "required"});
  expect_failure(qianli({"generate", "tokenizer"}), 2, {"--prompt"});
  expect_failure(qianli({"config", "show", "tiny.yaml", "optim.lr"}), 2, {"key=value", "optim.lr"});
}

TEST_F(HelpTest, ValuesOutOfRangeAreUsageErrors) {
  const Command mistakes[] = {
      {{"train.steps=-1"}, {"train.steps", "'-1'"}},
      {{"train.steps=99999999999999999999"}, {"train.steps", "99999999999999999999"}},
      {{"optim.lr=nan"}, {"optim.lr", "'nan'"}},
      {{"optim.lr=fast"}, {"optim.lr", "'fast'"}},
      {{"data.sequence_length=99999999999"}, {"data.sequence_length", "99999999999"}},
      {{"train.micro_batch_size=0"}, {"train.micro_batch_size", "'0'"}},
      {{"run.dir="}, {"run.dir", "nothing"}},
  };
  for (const auto& mistake : mistakes) {
    expect_failure(qianli({"config", "show", "tiny.yaml", mistake.words[0]}), 2, mistake.mentions);
  }
  expect_failure(qianli({"generate", "x", "--prompt", "a", "-n", "0"}), 2, {"--max-new-tokens"});
  expect_failure(qianli({"generate", "x", "--prompt", "a", "--seed", "-1"}), 2, {"--seed"});
}

TEST_F(HelpTest, DocumentsMadeByTheProgramAreUpToDate) {
  EXPECT_EQ(read_text(source_path("docs/config.md")), qianli({"config", "docs"}).out)
      << "qianli config docs > docs/config.md";
  const std::string families = qianli({"presets", "--families"}).out;
  EXPECT_NE(read_text(source_path("docs/models.md"))
                .find("<!-- families:begin -->\n" + families + "<!-- families:end -->"),
            std::string::npos)
      << "docs/models.md, between the marks: qianli presets --families";
}

TEST_F(HelpTest, LostOutputIsAnErrorAndALostReaderIsNot) {
  auto full = options();
  full.standard_output = "/dev/full";
  expect_failure(run({"presets"}, full), 3, {"cannot write"});
  expect_failure(run({"config", "docs"}, full), 3, {"cannot write"});
  RunOptions piped = options();
  piped.program = "/bin/bash";
  const std::string half =
      program_path().string() + " config docs | head -c 1; exit ${PIPESTATUS[0]}";
  expect_success(run({"-c", half}, piped));
  auto closed = options();
  closed.closed_streams = {0, 1, 2};
  EXPECT_EQ(run({"presets"}, closed).code, 0);
  EXPECT_EQ(run({"presets", "lama-tiny"}, closed).code, 2);
}

}  // namespace
}  // namespace qianli::testing
