// Where this build's libraries lie. Internal to the room.
#pragma once

#include <filesystem>

namespace qianli::device {

// The folder of the shared library this code is in; empty where it cannot be told.
std::filesystem::path own_folder();

}  // namespace qianli::device
