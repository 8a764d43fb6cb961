// An adapter taken out of a model that it was merged into, bit for bit.
//
// W' = M - scale B A, in the type of W, is near W, but not W: merging rounded M. What is missing is
// kept beside the merged model in `unmerge.safetensors`. Of each parameter that W' is not:
//
//   NAME.steps   U8 [n / 4, rounded up]  two bits for each element, the first in the lowest: W is
//   W'
//                (0), the next number of its type above (1) or below (3), or one of the others (2)
//   NAME.others  U8 [bytes]              these, as they are, in order
//
// and of every parameter, in the metadata, its type and the XXH3 of its bytes.
#pragma once

#include <filesystem>
#include <memory>

#include "qianli/convert/model_source.h"

namespace qianli::convert {

// `merged` was opened with an adapter (SourceOptions::adapter, PEFT's) and written to `folder`,
// which gets the file. Throws CheckpointError where the adapter is none that can be taken out
// (DoRA, Megatron's), or the base is stored in few bits.
void write_unmerge_record(const ModelSource& merged, const std::filesystem::path& folder);

// The base of the merged model in `folder`, from the model, the adapter and the record. Every
// parameter has been compared with what the record says of it: throws CheckpointError where one
// differs, as with another adapter, or weights that were changed since.
std::unique_ptr<ModelSource> open_unmerged(const std::filesystem::path& folder,
                                           const std::filesystem::path& adapter);

}  // namespace qianli::convert
