// Where this build's libraries lie: those that are opened only when they are needed lie beside it.
#pragma once

#include <filesystem>

namespace qianli {

// The folder of the shared library (or program) this code is in; empty where it cannot be told.
std::filesystem::path own_folder();

}  // namespace qianli
