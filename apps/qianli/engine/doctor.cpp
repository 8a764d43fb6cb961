#include <fmt/core.h>
#include <torch/headeronly/version.h>

#include "apps/qianli/engine/commands.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/base/strings.h"
#include "qianli/base/threads.h"
#include "qianli/device/device.h"
#include "qianli/ops/dispatch.h"
#include "qianli/ops/peak.h"

namespace qianli::app {
namespace {

OrderedJson measurements(c10::Device device) {
  OrderedJson list = OrderedJson::object();
  for (const auto dtype : {c10::kFloat, c10::kBFloat16}) {
    list[fmt::format("gemm_{}_gflops", device::dtype_name(dtype))] =
        ops::measure_gemm_flops(device, dtype) / 1e9;
  }
  list["bandwidth_gbytes_per_second"] = device::measure_bandwidth(device) / 1e9;
  return list;
}

OrderedJson describe_cpu() {
  OrderedJson cpu{{"name", device::cpu_name()},
                  {"cores_given", available_cores()},
                  {"memory_bytes", available_memory_bytes()},
                  {"features", device::cpu_features()}};
  cpu["measured"] = measurements(c10::Device(c10::kCPU));
  cpu["precision_auto"] = device::choose_compute_type("auto", c10::Device(c10::kCPU)).reason;
  return cpu;
}

OrderedJson describe_cuda() {
  const auto& library = device::CudaLibrary::get();
  OrderedJson cuda{{"available", library.available()}};
  if (!library.available()) {
    cuda["why_not"] = library.why();
    return cuda;
  }
  for (size_t i = 0; i < library.devices().size(); ++i) {
    const auto& found = library.devices()[i];
    OrderedJson entry{{"name", found.name},
                      {"memory_bytes", found.total_bytes},
                      {"capability", fmt::format("{}.{}", found.major, found.minor)}};
    entry["measured"] = measurements(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(i)));
    cuda["devices"].push_back(entry);
  }
  return cuda;
}

void print_measured(const OrderedJson& measured) {
  fmt::print("  GEMM         fp32 {:.0f} GFLOP/s, bf16 {:.0f} GFLOP/s\n",
             measured["gemm_fp32_gflops"].get<double>(),
             measured["gemm_bf16_gflops"].get<double>());
  fmt::print("  memory       {:.1f} GB/s copying (read and written)\n",
             measured["bandwidth_gbytes_per_second"].get<double>());
}

void print_text(const OrderedJson& report) {
  const auto& cpu = report["cpu"];
  std::vector<std::string> features = cpu["features"];
  fmt::print("CPU            {}\n", cpu["name"].get<std::string>());
  fmt::print("  given        {} core(s), {}\n", cpu["cores_given"].get<int>(),
             human_bytes(cpu["memory_bytes"].get<uint64_t>()));
  fmt::print("  instructions {}\n", join(features, ", "));
  print_measured(cpu["measured"]);
  fmt::print("  precision    auto is {}\n", cpu["precision_auto"].get<std::string>());
  const auto& cuda = report["cuda"];
  if (!cuda["available"].get<bool>()) {
    fmt::print("CUDA           not available: {}\n", cuda["why_not"].get<std::string>());
    fmt::print(
        "  to get it    install an NVIDIA driver and the CUDA 13 toolkit, then run "
        "scripts/setup.sh again\n");
  } else {
    for (const auto& found : cuda["devices"]) {
      fmt::print("CUDA           {}, {}, capability {}\n", found["name"].get<std::string>(),
                 human_bytes(found["memory_bytes"].get<uint64_t>()),
                 found["capability"].get<std::string>());
      print_measured(found["measured"]);
    }
  }
  fmt::print("LibTorch       {}\n", report["libtorch"].get<std::string>());
}

}  // namespace

void run_doctor(bool json) {
  device::start();
  ops::load_cuda_kernels();
  const OrderedJson report{
      {"cpu", describe_cpu()}, {"cuda", describe_cuda()}, {"libtorch", TORCH_VERSION}};
  if (json) {
    fmt::print("{}\n", report.dump(2));
  } else {
    print_text(report);
  }
}

}  // namespace qianli::app
