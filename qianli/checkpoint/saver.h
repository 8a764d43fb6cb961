// Writing checkpoints while training goes on. A checkpoint is the folder CHECKPOINTS/step_N:
//
//   manifest.json                       what is here, see manifest.h
//   model-0000i-of-0000n.safetensors    weights in the most exact form kept, canonical names
//   optimizer-0000i-of-0000n.safetensors  exp_avg.NAME and exp_avg_sq.NAME
//   config.json, tokenizer.json, ...    so that the folder serves wherever a model does
//
// beside the file CHECKPOINTS/latest, which holds the name of the newest one. A save is atomic: all
// files are flushed in a hidden folder, which is renamed, and the pointer follows last. Whatever
// happens in between, the checkpoint that the pointer named before stays whole.
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "qianli/checkpoint/training_state.h"
#include "qianli/model/spec.h"
#include "qianli/nn/parameter_set.h"
#include "qianli/optim/flat_optimizer.h"

namespace qianli::checkpoint {

namespace fs = std::filesystem;

struct SaverOptions {
  fs::path folder;           // CHECKPOINTS; made if absent
  int64_t keep = 0;          // how many checkpoints stay; 0: all
  bool asynchronous = true;  // write in the background, from a copy of the state
  fs::path tokenizer;        // folder (or file) whose tokenizer files go along; empty: none
  fs::path resumed_from;     // a checkpoint that is never removed; empty: none
  model::ModelSpec spec;
  int64_t max_shard_bytes = int64_t{4} << 30;
};

class Saver {
 public:
  // Removes what crashed saves left behind. Throws CheckpointError where the folder cannot be made,
  // or another live process saves into it.
  explicit Saver(SaverOptions options);
  // Waits for the background; an error that nobody has seen is logged.
  ~Saver();
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  // Saves the state as step_{state.step}, replacing a checkpoint of that name left by an earlier
  // run; does nothing when this saver's last save was of the same state. First waits for the save
  // before, and throws its error. Asynchronous: returns as soon as the tensors are copied (12 bytes
  // for each float32 parameter). Throws CheckpointError: no space, read-only folder, ...;
  // checkpoints saved before stay as they are. The gradients are not saved: save between steps.
  void save(const TrainingState& state, const nn::ParameterSet& parameters,
            optim::FlatOptimizer& optimizer);
  // Until the last save is on disk; throws its error.
  void wait();

 private:
  struct Snapshot;
  void write(const Snapshot& snapshot);
  void check_space(uint64_t bytes) const;
  void remove_old(int64_t newest_step);

  SaverOptions options_;
  int lock_ = -1;  // descriptor of the folder
  std::optional<TrainingState> last_;
  std::thread thread_;
  std::exception_ptr error_;  // of the background; read after joining
};

}  // namespace qianli::checkpoint
