// The tensors of a GGUF file as numbers: what is written, and what a reader finds.
#pragma once

#include <memory>
#include <vector>

#include "qianli/convert/assemble.h"
#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/gguf/values.h"
#include "qianli/formats/gguf.h"

namespace qianli::convert {

struct StoredTensor {
  ForeignTensor tensor;
  formats::GgmlType type = formats::GgmlType::kF32;
  GgufValues values = GgufValues::kSame;
};

// What formats::write_gguf() wants the numbers in: the plain type, F32 for blocks.
formats::Dtype written_dtype(formats::GgmlType type);

// The numbers of a model, from tensors whose values change on the way, do not always come back in
// float32: 1 + x forgets the last bits of a small x. Where one would not, all of these tensors'
// numbers as they were, one after the other in the order of `tensors`; else nothing. Files carry
// them under kExactKey, which other programs pass over.
std::vector<float> exact_values(const ParameterReader& source,
                                const std::vector<StoredTensor>& tensors);
inline constexpr const char* kExactKey = "qianli.exact";

// A file with the numbers as a model has them: norms around 0, logarithms of decays. `exact` is
// what exact_values() gave; a number of it counts where it leads to the one that is stored.
// CheckpointError where it has another length.
std::unique_ptr<formats::TensorSource> as_parameters(std::unique_ptr<formats::TensorSource> file,
                                                     const GgufArchitecture& architecture,
                                                     std::vector<float> exact);

// What as_parameters() will find in a file that `tensors` of `source` are written to: rounded to
// the file's types. `source` outlives the result.
std::unique_ptr<formats::TensorSource> after_storing(const ParameterReader& source,
                                                     std::vector<StoredTensor> tensors);

}  // namespace qianli::convert
