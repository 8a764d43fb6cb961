// A user trains an adapter, takes it along as a PEFT folder, goes on from it, and uses the model.
#include <map>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

class LoraTest : public Workshop {
 protected:
  // Steps of a model that `base` trained before.
  Result tune(const std::string& run, int64_t steps, std::vector<std::string> more = {}) const {
    std::vector<std::string> overrides{
        "model=base/hugging_face", "tune.method=lora",    "tune.r=4",
        "optim.lr=0.02",           "optim.decay_steps=6", "optim.warmup_steps=0",
        "checkpoint.every=3",      "run.dir=" + run,      "train.steps=" + std::to_string(steps)};
    overrides.insert(overrides.end(), more.begin(), more.end());
    return pretrain(overrides);
  }
  void make_base() const {
    expect_success(pretrain({"run.dir=base", "train.steps=2", "checkpoint.hugging_face=true"}));
  }
  // By name, what the files of weights and optimizer states of the last checkpoint hold.
  std::map<std::string, std::string> stored(const std::string& run) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(path(run) / "checkpoints" / "step_6")) {
      if (entry.path().extension() == ".safetensors")
        files[entry.path().filename()] = read_text(entry.path());
    }
    return files;
  }
};

TEST_F(LoraTest, TrainsSavesAndGoesOnBitForBit) {
  QIANLI_REQUIRE_ENGINE();
  make_base();
  expect_success(tune("straight", 6));
  expect_success(tune("parts", 3));
  expect_success(tune("parts", 6));
  const auto files = stored("straight");
  EXPECT_GE(files.size(), 2u);
  EXPECT_TRUE(files == stored("parts"));
  // The base is not in the checkpoint.
  EXPECT_LT(files.at("model-00001-of-00001.safetensors").size(),
            fs::file_size(path("base/hugging_face/model.safetensors")) / 2);
}

TEST_F(LoraTest, AdapterGoesOutAndIn) {
  QIANLI_REQUIRE_ENGINE();
  make_base();
  expect_success(tune("first", 6));
  expect_success(qianli({"convert", "first", "adapter", "--to", "peft", "--verify"}));
  const Json config = Json::parse(read_text(path("adapter/adapter_config.json")));
  EXPECT_EQ(config.at("r"), 4);
  EXPECT_EQ(config.at("base_model_name_or_path"), "base/hugging_face");
  EXPECT_NE(config.at("target_modules").dump().find("\"q_proj\""), std::string::npos);
  // The run, the base with the adapter, and what they convert to are one model.
  expect_success(qianli({"convert", "first", "from_run", "--to", "hf", "--dtype", "fp32"}));
  expect_success(qianli({"convert", "base/hugging_face", "merged", "--adapter", "adapter", "--to",
                         "hf", "--dtype", "fp32"}));
  EXPECT_TRUE(read_text(path("from_run/model.safetensors")) ==
              read_text(path("merged/model.safetensors")));
  EXPECT_FALSE(read_text(path("from_run/model.safetensors")) ==
               read_text(path("base/hugging_face/model.safetensors")));
  // What is merged for it can be taken apart again.
  expect_success(qianli({"convert", "base/hugging_face", "apart", "--adapter", "adapter", "--to",
                         "hf", "--reversible", "--verify"}));
  expect_success(
      qianli({"convert", "apart", "again", "--to", "hf", "--unmerge", "adapter", "--verify"}));
  EXPECT_FALSE(read_text(path("apart/model.safetensors")) ==
               read_text(path("base/hugging_face/model.safetensors")));
  EXPECT_TRUE(read_text(path("again/model.safetensors")) ==
              read_text(path("base/hugging_face/model.safetensors")));
  expect_failure(qianli({"convert", "merged", "never", "--to", "hf", "--unmerge", "adapter"}), 6,
                 {"unmerge.safetensors", "--reversible"});
  // Going on from it begins where it was, and another one does not fit.
  expect_success(tune("second", 6, {"tune.adapter=adapter"}));
  EXPECT_LT(read_metrics(path("second")).front().at("loss").get<double>(),
            read_metrics(path("first")).front().at("loss").get<double>());
  expect_failure(tune("third", 6, {"tune.adapter=adapter", "tune.target_modules=[q_proj]"}), 6,
                 {"adapter", "target_modules"});
  expect_failure(tune("fourth", 6, {"tune.adapter=adapter", "tune.alpha=3"}), 6, {"scale"});
}

TEST_F(LoraTest, SaysWhatIsWrong) {
  QIANLI_REQUIRE_ENGINE();
  make_base();
  expect_failure(tune("a", 1, {"tune.target_modules=[q_prj]"}), 2, {"q_prj", "names look like"});
  expect_failure(pretrain({"tune.method=lora", "run.dir=b"}), 2, {"model with weights"});
  expect_failure(tune("c", 1, {"tune.freeze_layers=1"}), 2, {"freeze_layers", "method=full"});
  expect_failure(pretrain({"tune.quantization=nf4", "run.dir=d"}), 2, {"tune.method=lora"});
}

}  // namespace
}  // namespace qianli::testing
