// The arguments that stand beside the weights of a Megatron checkpoint, read.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/convert/megatron/layout.h"
#include "qianli/formats/pickle.h"

namespace qianli::convert {

// An argparse.Namespace, or a dictionary, of the run that wrote the checkpoint. Where an argument
// has had several names, the first that is there counts. None counts as absent.
class StoredArguments {
 public:
  using Names = std::initializer_list<std::string_view>;

  // `args` may be null and otherwise outlives this; `source` names the file in messages.
  StoredArguments(const formats::Value* args, std::string source)
      : args_(args), source_(std::move(source)) {}

  const std::string& source() const { return source_; }
  const formats::Value* find(std::string_view name) const;
  bool has(std::string_view name) const;  // even as None

  // Throw CheckpointError where the argument is there and of another kind.
  std::optional<int64_t> integer(Names names) const;
  std::optional<double> number(Names names) const;
  bool flag(Names names) const;  // whether any of them is there and True
  std::string text(std::string_view name) const;
  std::vector<int64_t> integers(std::string_view name) const;  // a list, or its text "3,4,5"
  std::vector<double> numbers(std::string_view name) const;    // the same

  // Throw CheckpointError where it is absent: the model cannot be known without.
  int64_t needed_integer(Names names) const;
  double needed_number(Names names) const;
  [[noreturn]] void fail(std::string_view name, const std::string& problem) const;

 private:
  [[noreturn]] void lacks(Names names) const;
  const formats::Value* first(Names names, std::string_view& name) const;

  const formats::Value* args_;
  std::string source_;
};

MegatronLayout layout_of(const StoredArguments& args);

// The model that the arguments of Megatron-LM (core_v0.12) or MindSpeed-LLM (2.2) describe, as a
// member of a family whose config.json has words for it, or else of `llama`, which can then be
// written in Megatron's forms alone. `embedding_rows` is the height of the padded embedding. Throws
// CheckpointError naming the argument that is missing, or that this program does not follow.
model::ModelSpec spec_of_arguments(const StoredArguments& args, int64_t embedding_rows);

// The same without looking for a family.
model::ModelSpec told_by_arguments(const StoredArguments& args, int64_t embedding_rows);

}  // namespace qianli::convert
