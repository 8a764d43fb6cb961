#include "tests/checkpoint/tiny_run.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <fstream>
#include <iterator>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/config/sections.h"
#include "qianli/model/hugging_face.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

void fill_tensor(const at::Tensor& target, double phase) {
  const auto places = at::arange(target.numel(), at::kDouble);
  target.copy_(places.mul(0.37).add(phase).sin().view(target.sizes()));
}

bool equal_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && at::equal(a, b);
}

}  // namespace

OneThread::OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
OneThread::~OneThread() { at::set_num_threads(before_); }

TinyRun::TinyRun(at::ScalarType dtype, bool master)
    : spec_(model::load_spec(source_path("tests/golden/models/qwen3"))),
      parameters_(std::make_unique<nn::ParameterSet>(spec_, dtype, at::kCPU, master)),
      optimizer_(std::make_unique<optim::FlatOptimizer>(*parameters_, config::OptimConfig{})) {}

void TinyRun::fill(int seed) {
  for (size_t i = 0; i < parameters_->size(); ++i) {
    const double phase = 100.0 * seed + static_cast<double>(i);
    fill_tensor(parameters_->exact(i), phase + 0.1);
    fill_tensor(parameters_->view(optimizer_->exp_avg(), i), phase + 0.2);
    fill_tensor(parameters_->view(optimizer_->exp_avg_sq(), i), phase + 0.3);
  }
  parameters_->refresh_from_master();
}

formats::TrainingState TinyRun::at_step(int64_t step) {
  fill(static_cast<int>(step));
  optimizer_->set_updates_done(state_of(step).updates_done);
  return state_of(step);
}

formats::TrainingState state_of(int64_t step) {
  return {.step = step,
          .updates_done = step - 1,
          .consumed_samples = 8 * step,
          .seed = 0xfedcba9876543210,
          .data_fingerprint = "0123abcd",
          .config_yaml = "train: {steps: 200}  # \xe5\x8d\x83\xe9\x87\x8c\n"};
}

::testing::AssertionResult same_weights(const nn::ParameterSet& a, const nn::ParameterSet& b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "different models";
  for (size_t i = 0; i < a.size(); ++i) {
    if (equal_bits(a.exact(i), b.exact(i)) &&
        equal_bits(a.view(a.flat(), i), b.view(b.flat(), i))) {
      continue;
    }
    return ::testing::AssertionFailure() << "weight " << a.entry(i).name << " differs";
  }
  return ::testing::AssertionSuccess();
}

::testing::AssertionResult same_tensors(TinyRun& a, TinyRun& b) {
  if (const auto weights = same_weights(a.parameters(), b.parameters()); !weights) return weights;
  if (!equal_bits(a.optimizer().exp_avg(), b.optimizer().exp_avg())) {
    return ::testing::AssertionFailure() << "exp_avg differs";
  }
  if (!equal_bits(a.optimizer().exp_avg_sq(), b.optimizer().exp_avg_sq())) {
    return ::testing::AssertionFailure() << "exp_avg_sq differs";
  }
  if (a.optimizer().updates_done() != b.optimizer().updates_done()) {
    return ::testing::AssertionFailure() << "updates_done differs";
  }
  return ::testing::AssertionSuccess();
}

checkpoint::SaverOptions saver_options(const std::filesystem::path& folder, TinyRun& run) {
  return {.folder = folder, .asynchronous = false, .spec = run.spec(), .max_shard_bytes = 50'000};
}

void save_step(const std::filesystem::path& folder, TinyRun& run, int64_t step) {
  checkpoint::Saver saver(saver_options(folder, run));
  saver.save(run.at_step(step), run.parameters(), run.optimizer());
}

::testing::AssertionResult loads_as_saved(const std::filesystem::path& step_folder,
                                          int64_t expected_step) {
  TinyRun expected, loaded;
  const auto state = checkpoint::load(step_folder, loaded.parameters(), loaded.optimizer());
  if (!(state == expected.at_step(expected_step))) {
    return ::testing::AssertionFailure() << step_folder << " holds step " << state.step;
  }
  return same_tensors(expected, loaded);
}

std::string checkpoint_error(const std::function<void()>& action) {
  try {
    action();
  } catch (const CheckpointError& error) {
    EXPECT_EQ(error.code(), ExitCode::kCheckpoint);
    return error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "expected a CheckpointError, got: " << error.what();
    return {};
  }
  ADD_FAILURE() << "expected a CheckpointError, got none";
  return {};
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
}

void edit_json(const std::filesystem::path& path, const std::function<void(Json&)>& edit) {
  Json json = Json::parse(read_text(path));
  edit(json);
  write_text(path, json.dump());
}

}  // namespace qianli::testing
