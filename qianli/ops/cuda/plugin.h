// The kernels behind the C boundary of libqianli_cuda.so, found with dlsym; loading, devices,
// memory and the rules for errors: qianli/device/cuda_plugin.h.
#pragma once

#include "qianli/device/cuda_plugin.h"
#include "qianli/ops/kernels.h"

extern "C" {

// Valid as long as the library is loaded.
const qianli::ops::KernelTable* qianli_cuda_kernels();
}
