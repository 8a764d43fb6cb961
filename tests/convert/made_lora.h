// LoRA in Megatron checkpoints, made up.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "qianli/convert/megatron/layout.h"
#include "tests/convert/made_adapter.h"

namespace qianli::testing {

constexpr int64_t kRank = 3;

// Numbers whose products and sums are rounded.
Matrix random(std::vector<int64_t> shape, const std::string& name);
Matrix rows(const Matrix& of, int64_t first, int64_t count);
Matrix columns(const Matrix& of, int64_t first, int64_t count);
Matrix stacked(const std::vector<Matrix>& matrices);

using RankTensors = std::map<std::string, Matrix>;  // by key in the chunk
void add_lora(RankTensors& tensors, const std::string& module, const Matrix& a, const Matrix& b);

struct WriteOptions {
  bool base = true;                             // without: as --lora-ckpt-filter leaves it
  std::optional<int64_t> alpha = 8, r = kRank;  // in args
};

// Copies a Megatron checkpoint of a stage per file, with adapters beside the layers.
void write_lora(const std::filesystem::path& from, const std::filesystem::path& to,
                const WriteOptions& options,
                const std::function<RankTensors(const convert::MegatronRank& rank)>& lora_of);

// What an error says; "opened" without one.
std::string refusal(const std::function<void()>& open);

}  // namespace qianli::testing
