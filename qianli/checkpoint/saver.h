// Writing checkpoints while training goes on. A checkpoint is the folder CHECKPOINTS/step_N:
//
//   manifest.json                         what is here, see manifest.h
//   model-0000i-of-0000n.safetensors      weights in the most exact form kept, canonical names
//   optimizer-0000i-of-0000n.safetensors  exp_avg.NAME and exp_avg_sq.NAME
//   ...-rank_R-0000i-of-0000n.safetensors instead, of R = 00000, ...: the part of each rank
//   config.json, tokenizer.json, ...      so that the folder serves wherever a model does
//
// beside the file CHECKPOINTS/latest, which holds the name of the newest one. A save is atomic: all
// files are flushed in a hidden folder, which is renamed, and the pointer follows last. Whatever
// happens in between, the checkpoint that the pointer named before stays whole. Several ranks share
// the folder: each writes its slices, none gathers those of others, and rank 0 does the rest.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <thread>
#include <vector>

#include "qianli/base/folder_lock.h"
#include "qianli/dist/group.h"
#include "qianli/formats/manifest.h"
#include "qianli/model/companion_files.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/flat_optimizer.h"

namespace qianli::checkpoint {

namespace fs = std::filesystem;

struct StepContents;

struct SaverOptions {
  fs::path folder;           // CHECKPOINTS; made if absent
  int64_t keep = 0;          // how many checkpoints stay; 0: all
  bool asynchronous = true;  // write in the background, from a copy of the state
  fs::path tokenizer;        // folder (or file) whose tokenizer files go along; empty: none
  fs::path resumed_from;     // a checkpoint that is never removed; empty: none
  model::ModelSpec spec;
  int64_t max_shard_bytes = int64_t{4} << 30;
  // All that save together; nothing else uses the group, because saves run in the background.
  dist::Group ranks;
  // The ranks that update the same slices of the flat buffers, each of which writes a part of them.
  plan::Share copies, expert_copies;
};

class Saver {
 public:
  // All members of `ranks` call it, and each member function. Removes what crashed saves left
  // behind. Throws CheckpointError where the folder cannot be made, another Saver (of any process)
  // writes into it, or the tokenizer cannot be read; ConfigError where the spec has no config.json.
  explicit Saver(SaverOptions options);
  // Waits for the background; an error that nobody has seen is logged.
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  // Saves the state as step_{state.step}, replacing a checkpoint of that name left by an earlier
  // run. Does nothing when the last save, or the checkpoint the run resumed from, was of the same
  // step. First waits for the save before, and throws its error. Asynchronous: returns as soon as
  // the rank's slices are copied (12 bytes for each float32 parameter of them). Throws
  // CheckpointError (no space, read-only folder, ...); the checkpoints saved before stay as they
  // are. Gradients are not saved: save between steps.
  void save(const formats::TrainingState& state, const nn::ParameterSet& parameters,
            optim::FlatOptimizer& optimizer);
  // Until the last save is on disk; throws its error.
  void wait();

 private:
  StepContents contents(const formats::TrainingState& state, const nn::ParameterSet& parameters,
                        optim::FlatOptimizer& optimizer) const;
  void check_space(const StepContents& step) const;
  void expect_space(uint64_t bytes) const;
  void write(const StepContents& contents) const;
  void publish(const StepContents& contents, AtomicFolder& folder,
               const std::vector<std::string>& manifests) const;
  void remove_old(int64_t newest_step) const;

  SaverOptions options_;
  std::optional<FolderLock> lock_;
  std::vector<model::CompanionFile> companions_;
  std::optional<formats::TrainingState> last_;  // on disk, or on its way
  std::thread thread_;
  std::exception_ptr error_;  // of the thread; read after joining it
};

}  // namespace qianli::checkpoint
