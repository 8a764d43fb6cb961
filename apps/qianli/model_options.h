// Options of the commands that run a model.
#pragma once

#include <CLI/CLI.hpp>

#include "apps/qianli/engine.h"

namespace qianli::app {

void add_model_options(CLI::App& command, ModelArguments& arguments);
// --adapter FOLDER; `named`: NAME=FOLDER, as often as wanted.
void add_adapter_option(CLI::App& command, std::vector<std::string>& adapters, bool named);
CLI::Option* add_speculate_option(CLI::App& command, ModelArguments& arguments);
void add_quantize_option(CLI::App& command, std::string& quantize);
void add_sampling_options(CLI::App& command, SamplingArguments& arguments);

}  // namespace qianli::app
