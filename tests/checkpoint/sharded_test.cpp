// Checkpoints of several ranks: whoever saves, whoever loads, the same bits.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/dist/rank_threads.h"
#include "qianli/plan/stages.h"
#include "qianli/train/ranks.h"
#include "tests/checkpoint/tiny_run.h"
#include "tests/support/test_paths.h"
#include "tests/train/layout_equality.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;

struct Sharing {
  int64_t ranks = 1;
  int64_t zero = 0;
  int64_t tensor = 1;
  int64_t expert = 1;
  int64_t expert_tensor = 0;
  int64_t zero_ranks = 0;
  int64_t tensor_x = 1, tensor_y = 1;
  int64_t pipeline = 1, chunks = 1, context = 1;
};

std::string text_of(const Sharing& sharing) {
  return fmt::format(
      "{} ranks, ZeRO {} among {}, tensor {} ({} x {}), expert {} by {}, pipeline {} of {} chunks, "
      "context {}",
      sharing.ranks, sharing.zero, sharing.zero_ranks, sharing.tensor, sharing.tensor_x,
      sharing.tensor_y, sharing.expert, sharing.expert_tensor, sharing.pipeline, sharing.chunks,
      sharing.context);
}

// One rank's part of a training state in bf16 with a float32 master.
class RankRun {
 public:
  RankRun(const model::ModelSpec& spec, const Sharing& sharing, const dist::World& world)
      : ranks_(join(spec, sharing, world)),
        config_(config_of(sharing)),
        parameters_(spec, at::kBFloat16, at::kCPU, /*master=*/true, ranks_.part,
                    ranks_.owners(config_)),
        optimizer_(parameters_, {}, train::gradient_groups(ranks_, parameters_, config_)) {}

  void fill() {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      parameters_.write(i, 0, whole(i, 0.1));
      for_each_owned(
          i, [&](const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const auto& take) {
            exp_avg.copy_(take(values(i, 0.2)));
            exp_avg_sq.copy_(take(values(i, 0.3)));
          });
    }
  }

  void expect_filled() {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const std::string& name = parameters_.entry(i).name;
      if (parameters_.entry(i).buffer) {
        EXPECT_TRUE(at::equal(parameters_.exact(i).view(-1), values(i, 0.1))) << name;
        continue;
      }
      if (!parameters_.keeps_slices(parameters_.region_of(i))) {
        EXPECT_TRUE(at::equal(parameters_.at(i).value().view(-1), values(i, 0.1).to(at::kBFloat16)))
            << name;
      }
      for_each_owned(
          i, [&](const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq, const auto& take) {
            EXPECT_TRUE(at::equal(exp_avg, take(values(i, 0.2)))) << name;
            EXPECT_TRUE(at::equal(exp_avg_sq, take(values(i, 0.3)))) << name;
          });
      const nn::FlatPlace& place = parameters_.place(i);
      for (const auto& part :
           parameters_.owned().within(place.offset, place.offset + place.count)) {
        const at::Tensor expected = values(i, 0.1).narrow(0, part.begin - place.offset, part.count);
        EXPECT_TRUE(at::equal(parameters_.master(part), expected)) << name;
        EXPECT_TRUE(at::equal(parameters_.values(part), expected.to(at::kBFloat16))) << name;
      }
    }
  }

  void save(const fs::path& folder, const model::ModelSpec& spec, bool asynchronous) {
    checkpoint::Saver saver({.folder = folder,
                             .asynchronous = asynchronous,
                             .spec = spec,
                             .max_shard_bytes = 20'000,
                             .ranks = ranks_.savers,
                             .copies = train::share_of(ranks_.sharing.across),
                             .expert_copies = train::share_of(ranks_.expert_sharing.across)});
    saver.save(state_of(3), parameters_, optimizer_);
    saver.wait();
  }

  nn::ParameterSet& parameters() { return parameters_; }
  optim::FlatOptimizer& optimizer() { return optimizer_; }

 private:
  static config::ParallelConfig config_of(const Sharing& sharing) {
    config::ParallelConfig config;
    config.zero = sharing.zero;
    config.zero_ranks = sharing.zero_ranks;
    config.bucket_elements = 1000;
    config.tensor_x = sharing.tensor_x;
    config.tensor_y = sharing.tensor_y;
    config.pipeline = sharing.pipeline;
    config.pipeline_chunks = sharing.chunks;
    config.context = sharing.context;
    return config;
  }
  static train::Ranks join(const model::ModelSpec& spec, const Sharing& sharing,
                           const dist::World& world) {
    const plan::Mesh mesh({.world = sharing.ranks,
                           .tensor = sharing.tensor,
                           .context = sharing.context,
                           .pipeline = sharing.pipeline,
                           .expert = sharing.expert,
                           .expert_tensor = sharing.expert_tensor});
    train::Ranks ranks = train::join_groups(world, mesh, config_of(sharing));
    const auto stages = plan::plan_stages(config_of(sharing), spec, /*microbatches=*/4);
    ranks.part.chunks = stages.chunks[static_cast<size_t>(ranks.stages.rank())];
    return ranks;
  }

  // Of all elements of parameter i, whoever holds them: float32.
  at::Tensor whole(size_t i, double phase) const {
    const model::ParameterEntry& entry = parameters_.entry(i);
    double place = 0;
    for (const char letter : entry.name) place = place * 0.7 + letter;
    const auto places = at::arange(entry.elements(), at::kDouble);
    return places.mul(0.37).add(phase + place).sin().to(at::kFloat).view(entry.shape);
  }
  // What the rank holds of them, flat.
  at::Tensor values(size_t i, double phase) const {
    return held_of(whole(i, phase), parameters_.part(i)).contiguous().view(-1);
  }

  template <class Visit>
  void for_each_owned(size_t i, const Visit& visit) {
    const nn::FlatPlace& place = parameters_.place(i);
    for (const auto& part : parameters_.owned().within(place.offset, place.offset + place.count)) {
      visit(optimizer_.exp_avg().narrow(0, part.place, part.count),
            optimizer_.exp_avg_sq().narrow(0, part.place, part.count), [&](const at::Tensor& all) {
              return all.narrow(0, part.begin - place.offset, part.count);
            });
    }
  }

  train::Ranks ranks_;
  config::ParallelConfig config_;
  nn::ParameterSet parameters_;
  optim::FlatOptimizer optimizer_;
};

constexpr Sharing kSharings[] = {
    {1},
    {2},
    {3, /*zero=*/1},
    {4, 1},
    {3, 2},
    {4, 3},
    {2, 0, /*tensor=*/2},
    {4, 3, /*tensor=*/2},
    {4, 0, /*tensor=*/4},  // more ranks than groups of queries
    {4, 3, 1, /*expert=*/4},
    {3, 0, 1, /*expert=*/3},  // of 8 experts
    {4, 2, /*tensor=*/2, /*expert=*/2},
    {4, 1, /*tensor=*/2, /*expert=*/2, /*expert_tensor=*/1},
    {4, 3, 1, 1, 0, /*zero_ranks=*/2},
};

// Stages that hold some layers, and ranks of a context that hold the same, among others.
constexpr Sharing kStages[] = {
    {1},
    {2, 0, 1, 1, 0, 0, 1, 1, /*pipeline=*/2},
    {2, 0, 1, 1, 0, 0, 1, 1, /*pipeline=*/2, /*chunks=*/2},
    {4, 1, 1, 1, 0, 0, 1, 1, /*pipeline=*/4},
    {4, 3, 1, 1, 0, 0, 1, 1, /*pipeline=*/2},
    {4, 0, /*tensor=*/2, 1, 0, 0, 1, 1, /*pipeline=*/2},
    {4, 1, 1, 1, 0, 0, 1, 1, 1, 1, /*context=*/2},
    {8, 2, 1, /*expert=*/2, 0, 0, 1, 1, /*pipeline=*/2, /*chunks=*/2, /*context=*/2},
};

// Two-dimensional among others.
constexpr Sharing kGrids[] = {
    {1},
    {2, 1, /*tensor=*/2},
    {4, 0, /*tensor=*/4, 1, 0, 0, 2, 2},
    {6, 0, /*tensor=*/6, 1, 0, 0, 2, 3},
    {8, 3, /*tensor=*/4, 1, 0, 0, 2, 2},
    {8, 0, /*tensor=*/8, 1, 0, 0, 4, 2},
};

void expect_all_load_from_all(const model::ModelSpec& spec, std::span<const Sharing> sharings) {
  for (const Sharing& saved : sharings) {
    TemporaryFolder folder;
    dist::run_ranks(saved.ranks, [&](const dist::World& world) {
      RankRun run(spec, saved, world);
      run.fill();
      run.save(folder.path(), spec, /*asynchronous=*/saved.ranks != 3);
    });
    const fs::path step = folder / "step_3";
    for (const Sharing& loading : sharings) {
      SCOPED_TRACE(text_of(saved) + " saved, " + text_of(loading) + " load");
      dist::run_ranks(loading.ranks, [&](const dist::World& world) {
        RankRun run(spec, loading, world);
        EXPECT_EQ(checkpoint::load(step, run.parameters(), run.optimizer()), state_of(3));
        run.expect_filled();
      });
    }
  }
}

TEST(ShardedCheckpoint, every_layout_loads_what_every_layout_saved) {
  model::ModelSpec spec = tiny_model("deepseek_v3");
  spec.num_layers = 2;
  expect_all_load_from_all(spec, kSharings);
}

TEST(ShardedCheckpoint, pipelines_load_what_every_layout_saved) {
  model::ModelSpec spec = tiny_model("deepseek_v3");
  spec.num_layers = 4;
  expect_all_load_from_all(spec, kStages);
}

TEST(ShardedCheckpoint, two_dimensional_layouts_load_what_every_layout_saved) {
  for (const char* model : {"gpt2", "llama"}) {
    SCOPED_TRACE(model);
    model::ModelSpec spec = tiny_model(model);
    spec.num_layers = 2;
    expect_all_load_from_all(spec, kGrids);
  }
}

TEST(ShardedCheckpoint, every_rank_writes_its_own_part) {
  const model::ModelSpec spec = TinyRun().spec();
  TemporaryFolder folder;
  dist::run_ranks(4, [&](const dist::World& world) {
    RankRun run(spec, {4, 1}, world);
    run.fill();
    run.save(folder.path(), spec, true);
  });
  uintmax_t bytes[4] = {};
  for (const auto& file : fs::directory_iterator(folder / "step_3")) {
    const std::string name = file.path().filename().string();
    for (int rank = 0; rank < 4; ++rank) {
      if (name.find("-rank_0000" + std::to_string(rank) + "-") != name.npos)
        bytes[rank] += file.file_size();
    }
  }
  const auto [least, most] = std::minmax_element(std::begin(bytes), std::end(bytes));
  EXPECT_GT(*least, 0u);
  EXPECT_LT(*most, *least * 5 / 4);  // headers differ
}

}  // namespace
}  // namespace qianli::testing
