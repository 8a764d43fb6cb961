// scripts/finetune-demo.sh with a tiny model in the place of the one that it fetches.
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

class FinetuneDemoTest : public Workshop {
 protected:
  Result demo(const std::vector<std::string>& arguments) const {
    RunOptions bash = options();
    bash.program = "/bin/bash";
    bash.environment["QIANLI"] = program_path().string();
    bash.environment["FINETUNE_DIR"] = path("demo").string();
    bash.environment["FINETUNE_GGUF"] = path("nothing.gguf").string();
    std::vector<std::string> all{source_path("scripts/finetune-demo.sh").string()};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run(all, bash);
  }
};

TEST_F(FinetuneDemoTest, SaysWhatItTakes) {
  const Result help = demo({"--help"});
  expect_success(help);
  EXPECT_NE(help.out.find("FINETUNE_DIR"), std::string::npos) << help.out;
  expect_failure(demo({"model"}), 2, {"expected no arguments, got 1"});
  expect_failure(demo({}), 3, {"FINETUNE_GGUF", "nothing.gguf"});
}

TEST_F(FinetuneDemoTest, AsksTrainsAndAsksAgain) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(pretrain({"train.steps=2", "checkpoint.hugging_face=true", "run.dir=first"}));
  fs::create_directories(path("demo"));
  fs::copy(path("first/hugging_face"), path("demo/model"), fs::copy_options::recursive);
  write_text(path("demo/model/chat_template.jinja"),
             "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
             "{% if add_generation_prompt %}assistant: {% endif %}");
  const Result first = demo({});
  expect_success(first);
  for (const char* part : {"Before", "> Who are you?", "Training adapters on the 64 answers",
                           "step     48/48", "After", "Trained in", "Talk with it"})
    EXPECT_NE(first.err.find(part), std::string::npos) << part << " in: " << first.err;
  EXPECT_TRUE(fs::exists(path("demo/run/hugging_face/config.json")));
  EXPECT_EQ(last_step(path("demo/run")), 48);
  // What is there is not made again.
  const Result again = demo({});
  expect_success(again);
  EXPECT_NE(again.err.find("resumed"), std::string::npos) << again.err;
}

}  // namespace
}  // namespace qianli::testing
