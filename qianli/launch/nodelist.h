// Slurm's compressed lists: host names, and how many tasks run on each node.
// https://slurm.schedmd.com/srun.html, SLURM_STEP_NODELIST and SLURM_TASKS_PER_NODE.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qianli::launch {

// The hosts of "node[003-005,7],gpu1" in order: node003, node004, node005, node7, gpu1. At most
// `most` of them; the rest of the expression is still checked. Several brackets in one name
// multiply ("rack[1-2]n[1-2]"). Throws ConfigError where the text is none, longer than 64 KiB, or
// holds a range of more than 65536 numbers.
std::vector<std::string> expand_nodelist(std::string_view text, size_t most);

// The count of node `node` in "8(x2),4": 8, 8, 4. Throws ConfigError where the text is none or has
// fewer nodes.
int tasks_on_node(std::string_view text, int node);

}  // namespace qianli::launch
