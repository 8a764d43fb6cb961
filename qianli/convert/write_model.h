// Writing a model in the form of another ecosystem.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "qianli/base/output_file.h"
#include "qianli/convert/model_source.h"

namespace qianli::convert {

struct TargetOptions {
  // Of all weights; absent: as they are stored, and bf16 for quantised ones.
  std::optional<formats::Dtype> dtype;
  bool q8_0 = false;  // of a GGUF file: matrices in blocks of 32 bytes with a scale
  uint64_t max_shard_bytes = uint64_t{5'000'000'000};
  MegatronLayout layout;     // of a Megatron checkpoint
  bool args_beside = false;  // its arguments in a file of their own (rank_files.h)
  bool drop_mtp = false;  // of a GGUF file: layers of multi-token prediction without a place in it
  bool torch_names = false;  // in a MindSpore checkpoint, where it could have its own
  uint64_t journal_step = kGrowthStep;
};

// All appear under `target` when they are whole; a target that exists is refused. What is written
// when the process is killed or asked to stop is kept, and the same call goes on with it. Throws
// ConfigError where the target has no place for the model, saying what is missing, and
// CheckpointError where writing fails.
// A checkpoint; with the states of its optimizer where the model has them, and then with the
// weights in the most exact form.
void write_checkpoint(const ModelSource& model, const std::filesystem::path& target,
                      const TargetOptions& options, const ProgressFunction& progress);
void write_hugging_face(const ModelSource& model, const std::filesystem::path& target,
                        const TargetOptions& options, const ProgressFunction& progress);
void write_megatron(const ModelSource& model, const std::filesystem::path& target,
                    const TargetOptions& options, const ProgressFunction& progress);
// One `.ckpt` beside config.json and tokenizer. Under the names of MindSpore Transformers, or
// PyTorch's where it has none for the model (a log line says so).
void write_mindspore(const ModelSource& model, const std::filesystem::path& target,
                     const TargetOptions& options, const ProgressFunction& progress);
// One file.
void write_gguf(const ModelSource& model, const std::filesystem::path& target,
                const TargetOptions& options, const ProgressFunction& progress);

}  // namespace qianli::convert
