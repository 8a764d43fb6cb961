// Cases of kernels_bench for the kernels of recurrent layers.
#pragma once

#include <functional>
#include <string>

namespace qianli::bench {

// line(name, shape, floating-point operations, run) times one case.
using Line = std::function<void(const std::string& name, const std::string& shape, double flops,
                                const std::function<void()>& run)>;
void recurrent_kernels(const Line& line);

}  // namespace qianli::bench
