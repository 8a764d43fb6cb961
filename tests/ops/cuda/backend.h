// Where the kernel tests run: on a GPU through libqianli_cuda.so, or on the host by emulation.
#pragma once

#include <cstddef>

#include "qianli/ops/kernels.h"

namespace qianli::testing {

// The kernels, or null with the reason in why_no_kernels().
const ops::KernelTable* kernels();
const char* why_no_kernels();
ops::Stream stream();

// Memory that the kernels can reach.
void* device_allocate(std::size_t bytes);
void device_free(void* data);
void copy_to_device(void* to, const void* from, std::size_t bytes);
// Waits for the kernels first.
void copy_to_host(void* to, const void* from, std::size_t bytes);

}  // namespace qianli::testing
