#include "qianli/checkpoint/saver.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/log.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/checkpoint/step_writer.h"
#include "qianli/dist/agreement.h"
#include "qianli/formats/checkpoint_folder.h"
#include "qianli/model/hugging_face.h"

namespace qianli::checkpoint {
namespace {

// For the manifest, the headers and the last block of each file.
constexpr uint64_t kSpareBytes = uint64_t{1} << 20;

// With the lock held, everything half-written belongs to the dead.
void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const bool ours =
        name.starts_with(".step_") || name.starts_with(fmt::format(".{}.", formats::kLatestName));
    if (ours && name.find(".tmp-") != name.npos) leftovers.push_back(entry->path());
  }
  for (const fs::path& path : leftovers) {
    log::info("checkpoint", "removing {}, left by a save that did not finish", path.string());
    fs::remove_all(path, error);
  }
}

// First away from its name, so that no half-removed folder is ever taken for a checkpoint.
void remove_step(const fs::path& path) {
  const fs::path hidden =
      path.parent_path() / fmt::format(".{}.tmp-{}", path.filename().string(), ::getpid());
  std::error_code error;
  fs::rename(path, hidden, error);
  if (!error) fs::remove_all(hidden, error);
  if (error) log::warn("checkpoint", "cannot remove {}: {}", path.string(), error.message());
}

// On the CPU; a copy where `copy` or the device demands one.
at::Tensor on_cpu(const at::Tensor& flat, bool copy) {
  return flat.detach().to(at::kCPU, flat.scalar_type(), /*non_blocking=*/false, copy).contiguous();
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && fs::is_directory(folder)) return;
  throw CheckpointError("checkpoint",
                        fmt::format("cannot create the folder {}: {}", folder.string(),
                                    error ? error.message() : "a file is in its place"),
                        "choose another run.dir");
}

// What one rank writes of the flat buffers: boxes of the parameters that lie there.
class PieceCutter {
 public:
  PieceCutter(const nn::ParameterSet& parameters, optim::FlatOptimizer& optimizer, bool copy,
              std::vector<StepContents::Piece>& pieces)
      : parameters_(parameters), optimizer_(optimizer), copy_(copy), pieces_(pieces) {}

  void cut(const nn::FlatRange& range) {
    for (const auto& part : parameters_.owned().within(range.begin, range.end)) {
      const auto own = [&](const at::Tensor& compact) {
        return on_cpu(compact.narrow(0, part.place, part.count), copy_);
      };
      const at::Tensor weights = on_cpu(parameters_.master(part), copy_);
      const at::Tensor exp_avg = own(optimizer_.exp_avg()),
                       exp_avg_sq = own(optimizer_.exp_avg_sq());
      for (size_t i = 0; i < parameters_.size(); ++i) {
        add(TensorKind::kWeight, i, part, weights);
        add(TensorKind::kExpAvg, i, part, exp_avg);
        add(TensorKind::kExpAvgSq, i, part, exp_avg_sq);
      }
    }
  }

  void add_buffers() {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const plan::ParameterPart& part = parameters_.part(i);
      if (!part.entry.buffer || part.counted == 0) continue;
      add_box(TensorKind::kWeight, part, {std::vector<int64_t>(part.shape.size(), 0), part.shape},
              on_cpu(parameters_.exact(i), copy_).view(-1));
    }
  }

 private:
  using TensorKind = formats::TensorKind;

  // What `values`, those of `part`, hold of parameter i.
  void add(TensorKind kind, size_t i, const nn::FlatRanges::Part& part, const at::Tensor& values) {
    const nn::FlatPlace& place = parameters_.place(i);
    const int64_t begin = std::max(place.offset, part.begin);
    const plan::ParameterPart& held = parameters_.part(i);
    const int64_t end =
        std::min(place.offset + std::min(place.count, held.counted), part.begin + part.count);
    if (begin >= end) return;
    int64_t next = begin - part.begin;
    for (const formats::Box& box :
         formats::boxes_of(held.shape, begin - place.offset, end - begin)) {
      add_box(kind, held, box, values.narrow(0, next, box.elements()));
      next += box.elements();
    }
  }

  // `values`: the elements of a box of what the rank holds.
  void add_box(TensorKind kind, const plan::ParameterPart& held, const formats::Box& box,
               const at::Tensor& values) {
    for (const plan::PlacedBox& piece : plan::placed(held, box)) {
      at::Tensor own = values.view(box.shape);
      for (size_t axis = 0; axis < box.shape.size(); ++axis) {
        own = own.narrow(static_cast<int64_t>(axis), piece.local.offset[axis] - box.offset[axis],
                         piece.local.shape[axis]);
      }
      pieces_.push_back({.kind = kind,
                         .name = held.entry.name,
                         .shape = held.entry.shape,
                         .box = piece.whole,
                         .values = own.contiguous().view(-1)});
    }
  }

  const nn::ParameterSet& parameters_;
  optim::FlatOptimizer& optimizer_;
  bool copy_;
  std::vector<StepContents::Piece>& pieces_;
};

bool same_place(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::equivalent(a, b, error) && !error;
}

}  // namespace

Saver::Saver(SaverOptions options)
    : options_(std::move(options)), companions_(model::read_companion_files(options_.tokenizer)) {
  model::to_hugging_face(options_.spec);
  dist::first_rank(options_.ranks, [&] {
    make_folder(options_.folder);
    lock_.emplace(options_.folder, FileRole::kCheckpoint,
                  "saves its checkpoints into " + options_.folder.string(),
                  "end it, or choose another run.dir");
    remove_leftovers(options_.folder);
    return std::string();
  });
  const fs::path& from = options_.resumed_from;
  if (formats::is_checkpoint(from) &&
      same_place(from, options_.folder / fs::canonical(from).filename())) {
    last_ = formats::read_manifest(from).state;
  }
}

Saver::~Saver() {
  try {
    wait();
  } catch (const std::exception& problem) {
    log::error("checkpoint", "the last save failed: {}", problem.what());
  }
}

void Saver::wait() {
  if (thread_.joinable()) thread_.join();
  if (!error_) return;
  last_.reset();
  std::rethrow_exception(std::exchange(error_, nullptr));
}

void Saver::save(const formats::TrainingState& state, const nn::ParameterSet& parameters,
                 optim::FlatOptimizer& optimizer) {
  wait();
  if (last_ && last_->step == state.step && last_->updates_done == state.updates_done &&
      last_->consumed_samples == state.consumed_samples) {
    return;
  }
  optimizer.gathering().complete();  // nothing is written to while it is read
  StepContents step = contents(state, parameters, optimizer);
  check_space(step);
  if (!options_.asynchronous) {
    write(step);
    last_ = state;
    return;
  }
  last_ = state;
  thread_ = std::thread([this, step = std::move(step)] {
    try {
      write(step);
    } catch (...) {
      error_ = std::current_exception();
    }
  });
}

StepContents Saver::contents(const formats::TrainingState& state,
                             const nn::ParameterSet& parameters,
                             optim::FlatOptimizer& optimizer) const {
  StepContents step{.state = state,
                    .spec = options_.spec,
                    .wide = parameters.options().dtype() == at::kDouble,
                    .companions = companions_,
                    .max_shard_bytes = options_.max_shard_bytes,
                    .rank = options_.ranks.rank(),
                    .ranks = options_.ranks.size()};
  PieceCutter cutter(parameters, optimizer, options_.asynchronous, step.pieces);
  const auto& layout = parameters.layout();
  for (const auto& part : parameters.owned().parts()) {
    const bool experts = layout.regions()[layout.region_at(part.begin)].experts;
    const plan::Share& copies = experts ? options_.expert_copies : options_.copies;
    cutter.cut(nn::slice_of(part.range(), copies.count, copies.index));
  }
  if (layout.regions().front().owner.rank == 0 && options_.copies.index == 0) cutter.add_buffers();
  return step;
}

void Saver::check_space(const StepContents& step) const {
  const auto parts =
      dist::every_rank(options_.ranks, [&] { return std::to_string(step.num_bytes()); });
  dist::first_rank(options_.ranks, [&] {
    uint64_t bytes = 0;  // of all ranks: they share the disk
    for (const std::string& part : parts) bytes += std::stoull(part);
    expect_space(bytes);
    return std::string();
  });
}

void Saver::expect_space(uint64_t bytes) const {
  const uint64_t free = free_disk_bytes(options_.folder);
  if (free >= bytes + kSpareBytes) return;
  throw CheckpointError(
      "checkpoint",
      fmt::format("expected {} MB of free space in {} for a checkpoint, got {} MB",
                  (bytes + kSpareBytes) >> 20, options_.folder.string(), free >> 20),
      "free some space, choose another run.dir, or lower checkpoint.keep");
}

void Saver::write(const StepContents& contents) const {
  const fs::path final_path = options_.folder / formats::step_name(contents.state.step);
  std::optional<AtomicFolder> folder;
  const fs::path shared = dist::first_rank(options_.ranks, [&] {
    folder.emplace(final_path, FileRole::kCheckpoint);
    return folder->path().string();
  });
  const auto manifests = dist::every_rank(options_.ranks, [&] {
    if (!fs::is_directory(shared)) {
      throw CheckpointError(
          "checkpoint",
          fmt::format("expected the folder {} of rank 0, found none here", shared.string()),
          "run.dir must lie on a file system that all ranks share");
    }
    return to_json(write_pieces(shared, contents));
  });
  dist::first_rank(options_.ranks, [&] {
    publish(contents, *folder, manifests);
    return std::string();
  });
}

void Saver::publish(const StepContents& contents, AtomicFolder& folder,
                    const std::vector<std::string>& manifests) const {
  write_rest(folder.path(), contents, manifests);
  folder.commit_replacing();
  write_file_atomically(options_.folder / formats::kLatestName,
                        formats::step_name(contents.state.step) + "\n", FileRole::kCheckpoint);
  remove_old(contents.state.step);
}

void Saver::remove_old(int64_t newest_step) const {
  if (options_.keep <= 0) return;
  std::vector<int64_t> steps = formats::steps_in(options_.folder);
  // Steps above the newest were saved by a run that was taken back: the oldest of all.
  std::ranges::stable_partition(steps, [&](int64_t step) { return step > newest_step; });
  const auto count = static_cast<int64_t>(steps.size());
  for (int64_t i = 0; i < count - options_.keep; ++i) {
    const fs::path path = options_.folder / formats::step_name(steps[i]);
    if (steps[i] == newest_step || same_place(path, options_.resumed_from)) continue;
    remove_step(path);
  }
}

}  // namespace qianli::checkpoint
