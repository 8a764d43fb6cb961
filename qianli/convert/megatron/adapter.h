// LoRA in Megatron checkpoints of format `torch`, as MindSpeed-LLM trains it with PEFT's layers.
//
// Names: MindSpeed-LLM 2.2, mindspeed_llm/tasks/posttrain/lora; PEFT, peft/tuners/lora/tp_layer.py:
//   X.base_layer.weight            of the base, absent with --lora-ckpt-filter
//   X.lora_A.default.weight        [rank, in], X cut by columns: cut as they are, else whole
//   X.lora_B.default.weight        [out, rank], X cut by rows: cut as they are, else whole
// A layer of Megatron's may be several of Hugging Face's (linear_qkv: q_proj, k_proj, v_proj): they
// share A, and each has its rows of B.
#pragma once

#include <filesystem>

#include "qianli/convert/adapter/adapter.h"
#include "qianli/convert/megatron/rank_files.h"

namespace qianli::convert {

// Whether a tensor belongs to an adapter, not to the base.
bool is_adapter_name(const std::string& name);
bool holds_adapter(const RankFiles& files);

// The adapter in the files, of a model that is known. Throws CheckpointError where it has no place
// in the model, or in PEFT's form; where what ranks hold alike differs; where the scale is not
// known.
AdapterSource read_megatron_adapter(const RankFiles& files, const model::ModelSpec& spec,
                                    const SourceOptions& options);
// The same by its parts: `tensors` are the model's (megatron_tensors), `ranks` those of the files.
struct AdapterScale {
  std::optional<int64_t> rank;  // absent: as the tensors have it
  double alpha = 1;
};
AdapterSource megatron_adapter(const Table& table, const std::vector<ForeignTensor>& tensors,
                               const std::vector<MegatronRank>& ranks,
                               std::vector<std::shared_ptr<const formats::TensorSource>> files,
                               const AdapterScale& scale, const std::filesystem::path& path);

// The adapter that stands at `path`, with or without its base; the model is that of --config, or of
// the arguments.
AdapterSource open_megatron_adapter(const std::filesystem::path& path,
                                    const SourceOptions& options);

// Whether a folder of PEFT's stands at `path`, without a model.
bool is_peft_adapter(const std::filesystem::path& path);

// Writes the adapter that stands at `peft` beside the layers of options.layout, without their base
// (as --lora-ckpt-filter leaves it); the model is that of source.config. Megatron's fused layers
// have one A: where the modules in them have several, these stand under one another in it, with
// zeros elsewhere in B and a rank that has room for all. Throws CheckpointError for what Megatron's
// LoRA has no place for: DoRA, whole tensors, embeddings, modules with scales of their own.
void write_megatron_adapter(const std::filesystem::path& peft, const SourceOptions& source,
                            const std::filesystem::path& target, const TargetOptions& options,
                            const ProgressFunction& progress);
// Reads the checkpoint back and compares every tensor with the folder's.
Proof verify_megatron_adapter(const std::filesystem::path& peft,
                              const std::filesystem::path& target);

}  // namespace qianli::convert
