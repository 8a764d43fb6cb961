// The names that a Hugging Face folder uses.
#pragma once

#include <string>

#include "qianli/formats/tensor_source.h"
#include "qianli/model/parameter_table.h"

namespace qianli::convert {

// Looks tensors up under the names of the parameter table, whichever of a family's spellings the
// folder has. `source` outlives it.
class FolderNames {
 public:
  FolderNames(const model::ModelSpec& spec, const formats::TensorSource& source);

  // The stored tensor; null where there is none. Throws CheckpointError where two spellings of it
  // are there.
  const formats::TensorSpec* find(const std::string& name) const;
  // The name that a tied output layer may be stored under.
  const std::string& tied_output() const { return habits_.tied_output; }
  // Tensors that belong to no parameter: buffers, parts of other modalities.
  bool ignored(const std::string& stored) const;

 private:
  const formats::TensorSpec* find_prefixed(const std::string& name) const;
  const formats::TensorSpec* find_outside_prefix(const std::string& name) const;

  model::ForeignHabits habits_;
  const formats::TensorSource& source_;
};

// The tensor of `source`, whose names are those of the parameter table, that `name` means in any of
// the family's spellings; null where there is none.
const formats::TensorSpec* find_any_spelling(const model::ForeignHabits& habits,
                                             const formats::TensorSource& source,
                                             const std::string& name);

}  // namespace qianli::convert
