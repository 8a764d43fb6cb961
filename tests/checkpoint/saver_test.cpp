#include "qianli/checkpoint/saver.h"

#include <gtest/gtest.h>

#include <fstream>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/formats/checkpoint_folder.h"
#include "qianli/model/hugging_face.h"
#include "tests/checkpoint/tiny_run.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;
using checkpoint::Saver;
using Steps = std::vector<int64_t>;

TEST(Saver, load_returns_what_was_saved_bit_for_bit) {
  TemporaryFolder folder;
  for (const bool asynchronous : {false, true}) {
    TinyRun run;
    auto options = saver_options(folder / "checkpoints", run);
    options.asynchronous = asynchronous;
    const int64_t step = asynchronous ? 12 : 11;
    Saver saver(options);
    saver.save(run.at_step(step), run.parameters(), run.optimizer());
    run.fill(99);  // training goes on while the background writes
    saver.wait();
    const auto newest = formats::latest_checkpoint(folder / "checkpoints");
    ASSERT_TRUE(newest.has_value());
    EXPECT_EQ(*newest, folder / "checkpoints" / formats::step_name(step));
    EXPECT_TRUE(loads_as_saved(*newest, step));
    EXPECT_TRUE(formats::is_checkpoint(*newest));
    EXPECT_EQ(formats::read_manifest(*newest).state, state_of(step));
  }
}

TEST(Saver, a_master_copy_and_float64_come_back_bit_for_bit) {
  TemporaryFolder folder;
  const std::pair<at::ScalarType, bool> kinds[] = {{at::kBFloat16, true}, {at::kDouble, false}};
  for (const auto& [dtype, master] : kinds) {
    TinyRun run(dtype, master), loaded(dtype, master);
    const int64_t step = master ? 1 : 2;
    save_step(folder.path(), run, step);
    checkpoint::load(folder / formats::step_name(step), loaded.parameters(), loaded.optimizer());
    EXPECT_TRUE(same_tensors(run, loaded));
  }
}

TEST(Saver, a_checkpoint_is_a_model_folder) {
  TemporaryFolder folder, tokenizer;
  write_text(tokenizer / "tokenizer.json", "{\"a\": 1}");
  write_text(tokenizer / "weights.bin", "not for the checkpoint");
  TinyRun run;
  auto options = saver_options(folder.path(), run);
  options.tokenizer = tokenizer.path();
  Saver(options).save(run.at_step(3), run.parameters(), run.optimizer());
  EXPECT_EQ(model::load_spec(folder / "step_3"), run.spec());
  EXPECT_EQ(read_text(folder / "step_3/tokenizer.json"), "{\"a\": 1}");
  EXPECT_FALSE(fs::exists(folder / "step_3/weights.bin"));
  TinyRun loaded;
  checkpoint::load_weights(folder / "step_3", loaded.parameters());
  EXPECT_TRUE(same_weights(run.parameters(), loaded.parameters()));
}

TEST(Saver, the_newest_checkpoints_stay) {
  TemporaryFolder folder;
  TinyRun run;
  auto options = saver_options(folder.path(), run);
  options.keep = 2;
  {
    Saver saver(options);
    for (const int64_t step : {2, 10, 9, 30}) {
      saver.save(run.at_step(step), run.parameters(), run.optimizer());
    }
  }
  // 9 came after 10, whose run was thereby taken back.
  EXPECT_EQ(formats::steps_in(folder.path()), (Steps{9, 30}));
  options.resumed_from = folder / "step_9";
  Saver saver(options);
  for (const int64_t step : {40, 50, 60}) {
    saver.save(run.at_step(step), run.parameters(), run.optimizer());
  }
  EXPECT_EQ(formats::steps_in(folder.path()), (Steps{9, 50, 60}));
  EXPECT_TRUE(loads_as_saved(folder / "step_60", 60));
}

TEST(Saver, the_same_step_again_is_written_once) {
  TemporaryFolder folder;
  TinyRun run;
  {
    Saver saver(saver_options(folder.path(), run));
    saver.save(run.at_step(5), run.parameters(), run.optimizer());
    const auto written = fs::last_write_time(folder / "step_5/manifest.json");
    saver.save(run.at_step(5), run.parameters(), run.optimizer());
    EXPECT_EQ(fs::last_write_time(folder / "step_5/manifest.json"), written);
  }
  // Nor does a run that resumed and stopped at once write its checkpoint again.
  const auto written = fs::last_write_time(folder / "step_5/manifest.json");
  auto options = saver_options(folder.path(), run);
  options.resumed_from = folder / "step_5";
  Saver saver(options);
  saver.save(run.at_step(5), run.parameters(), run.optimizer());
  EXPECT_EQ(fs::last_write_time(folder / "step_5/manifest.json"), written);
}

TEST(Saver, a_checkpoint_of_an_earlier_run_is_replaced) {
  TemporaryFolder folder;
  TinyRun run;
  save_step(folder.path(), run, 5);
  Saver saver(saver_options(folder.path(), run));
  auto state = run.at_step(5);
  run.fill(77);
  state.consumed_samples = 123;
  saver.save(state, run.parameters(), run.optimizer());
  TinyRun loaded;
  EXPECT_EQ(checkpoint::load(folder / "step_5", loaded.parameters(), loaded.optimizer()), state);
  EXPECT_TRUE(same_weights(run.parameters(), loaded.parameters()));
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    EXPECT_EQ(entry.path().filename().string().find(".tmp-"), std::string::npos) << entry.path();
  }
}

TEST(Saver, two_savers_do_not_share_a_folder) {
  TemporaryFolder folder;
  TinyRun run;
  const auto options = saver_options(folder.path(), run);
  {
    Saver saver(options);
    const std::string message = checkpoint_error([&] { Saver second(options); });
    EXPECT_NE(message.find("another process"), std::string::npos) << message;
  }
  Saver again(options);  // the lock goes with its holder
}

TEST(Saver, leftovers_are_removed_at_the_start_and_nothing_else) {
  TemporaryFolder folder;
  TinyRun run;
  save_step(folder.path(), run, 1);
  fs::create_directory(folder / ".step_2.tmp-4242");
  write_text(folder / ".step_2.tmp-4242/model.safetensors", "half");
  write_text(folder / ".latest.tmp-4242", "ste");
  write_text(folder / ".step_notes", "mine");
  Saver saver(saver_options(folder.path(), run));
  EXPECT_FALSE(fs::exists(folder / ".step_2.tmp-4242"));
  EXPECT_FALSE(fs::exists(folder / ".latest.tmp-4242"));
  EXPECT_TRUE(fs::exists(folder / ".step_notes"));
  EXPECT_TRUE(loads_as_saved(folder / "step_1", 1));
}

TEST(Saver, a_failed_save_in_the_background_surfaces_and_training_can_save_again) {
  TemporaryFolder folder;
  TinyRun run;
  auto options = saver_options(folder.path(), run);
  options.asynchronous = true;
  Saver saver(options);
  saver.save(run.at_step(1), run.parameters(), run.optimizer());
  saver.wait();
  write_text(folder / "step_2", "a file where the folder must go");
  saver.save(run.at_step(2), run.parameters(), run.optimizer());
  const std::string message = checkpoint_error([&] { saver.wait(); });
  EXPECT_NE(message.find("step_2"), std::string::npos) << message;
  EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_1");
  EXPECT_TRUE(loads_as_saved(folder / "step_1", 1));
  saver.wait();  // an error is told once

  saver.save(run.at_step(2), run.parameters(), run.optimizer());
  EXPECT_NE(checkpoint_error([&] {
              saver.save(run.at_step(3), run.parameters(), run.optimizer());
            }).find("step_2"),
            std::string::npos);
  fs::remove(folder / "step_2");
  saver.save(run.at_step(2), run.parameters(), run.optimizer());
  saver.wait();
  EXPECT_TRUE(loads_as_saved(*formats::latest_checkpoint(folder.path()), 2));
}

TEST(Saver, a_file_in_place_of_the_folder_is_an_error) {
  TemporaryFolder folder;
  TinyRun run;
  write_text(folder / "checkpoints", "");
  const std::string message =
      checkpoint_error([&] { Saver saver(saver_options(folder / "checkpoints", run)); });
  EXPECT_NE(message.find("cannot create the folder"), std::string::npos) << message;
}

TEST(Latest, falls_back_to_the_newest_complete_checkpoint) {
  TemporaryFolder folder;
  EXPECT_FALSE(formats::latest_checkpoint(folder / "nowhere").has_value());
  EXPECT_FALSE(formats::latest_checkpoint(folder.path()).has_value());
  TinyRun run;
  for (const int64_t step : {1, 2, 3}) save_step(folder.path(), run, step);
  EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_3");

  fs::resize_file(folder / "step_3/model-00001-of-00003.safetensors", 100);
  EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_2");
  write_text(folder / "latest", "step_1\n");
  EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_1");
  for (const char* pointer : {"step_9\n", "../elsewhere\n", "", "step_1/../step_1", "step_01"}) {
    write_text(folder / "latest", pointer);
    EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_2") << pointer;
  }
  fs::remove(folder / "latest");
  fs::remove(folder / "step_2/config.json");
  EXPECT_EQ(formats::latest_checkpoint(folder.path()), folder / "step_1");
}

}  // namespace
}  // namespace qianli::testing
