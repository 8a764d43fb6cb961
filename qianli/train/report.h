// report.html of a run: curves of loss, learning rate, gradient norm, speed and memory. One file,
// no network.
#pragma once

#include <filesystem>

namespace qianli::train {

// Reads metrics.jsonl and config.yaml of the run folder and writes report.html beside them.
void write_report(const std::filesystem::path& run_folder);

}  // namespace qianli::train
