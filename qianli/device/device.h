// CPU, CUDA and NPU behind one surface: choosing the device and the compute type, threads, memory, bandwidth.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "qianli/device/allocator.h"

namespace qianli::device {

// Call once before any tensor work: caching allocator, intra-op threads = cores given to the process,
// or its share of them where `processes` of a job run on this machine. QIANLI_THREADS is never shared.
void start(int64_t processes = 1);
int threads();

// The CUDA library, opened on first use; why() tells what is missing when it is not available.
struct CudaDevice {
  std::string name;
  uint64_t total_bytes = 0;
  int major = 0, minor = 0;
  std::string bus;  // where it is in this machine, "0000:1b:00.0": tells devices of a job apart
};
class CudaLibrary {
 public:
  static const CudaLibrary& get();
  bool available() const { return !devices_.empty(); }
  const std::string& why() const { return why_; }
  const std::vector<CudaDevice>& devices() const { return devices_; }
  // Looks up a function of the plugin; null where the plugin is not loaded.
  void* symbol(const char* name) const;

 private:
  CudaLibrary();
  void* handle_ = nullptr;
  std::string why_;
  std::vector<CudaDevice> devices_;
};

// The same for Ascend NPUs: a library built against torch_npu, which brings the device to LibTorch.
// There are no kernels of ours in it: ATen's operators and the reference compositions serve.
class NpuLibrary {
 public:
  static const NpuLibrary& get();
  int devices() const { return devices_; }  // 0: none can be used
  const std::string& why() const { return why_; }
  void* symbol(const char* name) const;

 private:
  NpuLibrary();
  void* handle_ = nullptr;
  int devices_ = 0;
  std::string why_;
};

// Which one of a job's processes on this machine this is.
struct LocalPlace {
  int64_t index = 0, count = 1;
};

// "auto" takes a CUDA device where one works, else the CPU. Of several processes each takes the
// device of its number; where only one is visible, that one: the launcher has dealt them out.
// It becomes the thread's current device. Throws ConfigError when a wanted device is not there, or
// there are fewer than processes, saying why.
c10::Device choose(const std::string& wanted, LocalPlace place = {});
// What tells it from other devices of this machine; empty: nothing is known.
std::string identity(c10::Device device);

struct ComputeType {
  c10::ScalarType dtype;
  std::string reason;  // one sentence for the log
};
// precision: auto, fp32, bf16, fp64.
ComputeType choose_compute_type(const std::string& precision, c10::Device device);
const char* dtype_name(c10::ScalarType dtype);

struct Memory {
  uint64_t in_use_bytes = 0;
  uint64_t peak_bytes = 0;
};
// Tensor memory on the device (CPU: the caching allocator's account).
Memory memory(c10::Device device);
void synchronize(c10::Device device);

// Repeats `work` for about `budget` seconds, at least three times after a first one that does not
// count, and returns the seconds of the fastest.
double fastest_seconds(c10::Device device, double budget, const std::function<void()>& work);
// Bytes per second of a large copy (read + write counted).
double measure_bandwidth(c10::Device device);

// Instruction sets that matter here, as this machine has them: "avx2", "avx512f", "avx512_bf16", "amx_bf16".
std::vector<std::string> cpu_features();
std::string cpu_name();

}  // namespace qianli::device
