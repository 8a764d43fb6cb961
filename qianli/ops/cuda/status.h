// CUDA status codes turned into exceptions.
#pragma once

namespace qianli::ops::cuda {

// Throws std::bad_alloc when `status` (a cudaError_t) says that device memory ran out, and
// std::runtime_error with the runtime's own text for any other failure of `what`.
void check(int status, const char* what);

}  // namespace qianli::ops::cuda
