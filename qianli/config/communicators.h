// What the communicators of single groups of ranks are asked to be like: parallel.communicators.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::config {

// 0: as the library likes.
struct CommunicatorOptions {
  int64_t min_ctas = 0, max_ctas = 0;  // thread blocks of a GPU that a collective of NCCL occupies
  int64_t buffer_bytes = 0;            // staging memory of a communicator, for each direction
  bool operator==(const CommunicatorOptions&) const = default;
};

struct NamedCommunicator {
  std::string written;  // the name as given
  std::string group;    // as a World knows it ("expert tensor"); empty: no group of ours is like it
  bool foreign = false;  // a name of Megatron's or MindSpeed's
  CommunicatorOptions options;
};

// "tensor:ctas=8,buffer=4M;experts:ctas=4-16", as Megatron's own "tp:200;exp:400", where a number
// alone is a buffer in MB (2^20 bytes). Words of a name are joined by "_" (expert_tensor). Names
// are not checked against a layout. Throws ConfigError that names the entry.
std::vector<NamedCommunicator> parse_communicators(std::string_view text);

// The name in which "_" stands for the spaces between words.
std::string written_name(std::string_view group);

}  // namespace qianli::config
