// The files of a Megatron checkpoint of format `torch`.
#pragma once

#include <filesystem>

#include "qianli/convert/produce.h"
#include "qianli/formats/pickle.h"

namespace qianli::convert {

// One file for each rank of options.layout, with the tensors whose `file` it is, and the arguments.
void write_ranks(const Targets& targets, const formats::Value& arguments,
                 const std::filesystem::path& target, const TargetOptions& options);

}  // namespace qianli::convert
