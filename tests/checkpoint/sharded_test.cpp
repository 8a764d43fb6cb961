// Checkpoints of several ranks: whoever saves, whoever loads, the same bits.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "qianli/checkpoint/checkpoint.h"
#include "qianli/dist/rank_threads.h"
#include "tests/checkpoint/tiny_run.h"
#include "tests/support/test_paths.h"

namespace qianli::testing {
namespace {

namespace fs = std::filesystem;

struct Sharing {
  int64_t ranks = 1;
  bool zero = false;
};

std::string text_of(const Sharing& sharing) {
  return std::to_string(sharing.ranks) + (sharing.zero ? " ranks with ZeRO-1" : " ranks");
}

// One rank's part of a training state in bf16 with a float32 master.
class RankRun {
 public:
  RankRun(const model::ModelSpec& spec, const Sharing& sharing, const dist::World& world)
      : group_(world.all()),
        sharding_{.ranks = sharing.ranks, .bucket_elements = 1000},
        parameters_(spec, at::kBFloat16, at::kCPU, /*master=*/true, {},
                    sharing.zero ? owners() : nn::FlatOwners{}),
        optimizer_(parameters_, {},
                   {.replicas = optim::DataParallel(group_, sharding_, sharing.zero)}) {}

  void fill() {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      parameters_.write(i, 0, values(i, 0.1));
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
      const at::Tensor flat = parameters_.view(parameters_.flat(), i).view(-1);
      EXPECT_TRUE(at::equal(flat, values(i, 0.1).to(at::kBFloat16))) << name;
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
      }
    }
  }

  void save(const fs::path& folder, const model::ModelSpec& spec, bool asynchronous) {
    checkpoint::Saver saver({.folder = folder,
                             .asynchronous = asynchronous,
                             .spec = spec,
                             .max_shard_bytes = 20'000,
                             .ranks = group_,
                             .owners = owners()});
    saver.save(state_of(3), parameters_, optimizer_);
    saver.wait();
  }

  nn::ParameterSet& parameters() { return parameters_; }
  optim::FlatOptimizer& optimizer() { return optimizer_; }

 private:
  nn::FlatOwners owners() const {
    return {.dense = {.sharding = sharding_, .rank = group_.rank()}};
  }
  // Of all elements of parameter i: float32.
  at::Tensor values(size_t i, double phase) const {
    const auto places = at::arange(parameters_.entry(i).elements(), at::kDouble);
    return places.mul(0.37).add(phase + static_cast<double>(i)).sin().to(at::kFloat);
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

  dist::Group group_;
  nn::FlatSharding sharding_;
  nn::ParameterSet parameters_;
  optim::FlatOptimizer optimizer_;
};

model::ModelSpec tiny() { return TinyRun().spec(); }

constexpr Sharing kSharings[] = {{1, false}, {2, false}, {2, true},
                                 {3, true},  {4, false}, {4, true}};

TEST(ShardedCheckpoint, any_number_of_ranks_loads_what_any_number_saved) {
  const model::ModelSpec spec = tiny();
  for (const Sharing& saved : kSharings) {
    TemporaryFolder folder;
    dist::run_ranks(saved.ranks, [&](const dist::World& world) {
      RankRun run(spec, saved, world);
      run.fill();
      run.save(folder.path(), spec, /*asynchronous=*/saved.ranks != 3);
    });
    const fs::path step = folder / "step_3";
    for (const Sharing& loading : kSharings) {
      SCOPED_TRACE(text_of(saved) + " saved, " + text_of(loading) + " load");
      dist::run_ranks(loading.ranks, [&](const dist::World& world) {
        RankRun run(spec, loading, world);
        EXPECT_EQ(checkpoint::load(step, run.parameters(), run.optimizer()), state_of(3));
        run.expect_filled();
      });
    }
  }
}

TEST(ShardedCheckpoint, every_rank_writes_its_own_part) {
  const model::ModelSpec spec = tiny();
  TemporaryFolder folder;
  dist::run_ranks(4, [&](const dist::World& world) {
    RankRun run(spec, {4, true}, world);
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
