// How far a model is from its reference.
//
//   model_check FOLDER...
//
// Each folder is a Hugging Face folder with golden.safetensors (tools/reference/family_goldens.py):
// tokens and labels [B, S], logits [B, S, V], loss [1], and grad.NAME for tensors of the folder.
// One JSON object per folder is printed: largest differences in float32 and float64, relative to
// the largest value of the tensor compared (for gradients at least a thousandth of the largest
// gradient of all, below which rounding speaks).
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <fmt/core.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/checkpoint/checkpoint.h"
#include "qianli/device/device.h"
#include "qianli/formats/safetensors.h"
#include "qianli/model/hugging_face.h"
#include "qianli/nn/decoder.h"
#include "qianli/optim/flat_optimizer.h"
#include "tests/support/stored_tensors.h"

namespace qianli::testing {
namespace {

constexpr double kSmallestShare = 1e-3;  // of the largest gradient, as a denominator

struct Differences {
  double logits = 0, loss = 0, gradients = 0;
  std::string worst_gradient;
};

double largest(const at::Tensor& x) { return x.numel() == 0 ? 0 : x.abs().max().item<double>(); }

class Check {
 public:
  Check(const std::filesystem::path& folder, at::ScalarType dtype)
      : golden_(formats::SafetensorsFile::open(folder / "golden.safetensors")),
        spec_(model::load_spec(folder)),
        parameters_(spec_, dtype, at::kCPU, /*master=*/true),
        optimizer_((checkpoint::load_weights(folder, parameters_), parameters_), {}),
        decoder_(spec_, parameters_) {}

  Differences run() {
    const at::Tensor tokens = stored_tensor(golden_, "tokens").to(at::kLong);
    const int64_t sequences = tokens.size(0), length = tokens.size(1);
    nn::DecoderInput input{.tokens = tokens.reshape({-1}),
                           .positions = at::arange(length, at::kLong).repeat({sequences}),
                           .max_position = length - 1};
    for (int64_t s = 0; s <= sequences; ++s) input.segment_starts.push_back(s * length);
    const at::Tensor expected = stored_tensor(golden_, "logits").to(at::kDouble);
    {
      const at::NoGradGuard no_grad;
      const at::Tensor logits =
          decoder_.logits(decoder_.forward(input)).to(at::kDouble).view(expected.sizes());
      differences_.logits = largest(logits - expected) / largest(expected);
    }
    const at::Tensor labels = stored_tensor(golden_, "labels").to(at::kLong).reshape({-1});
    const at::Tensor counted = labels >= 0;
    const at::Tensor weights = counted.to(parameters_.flat().scalar_type()) / counted.sum();
    optimizer_.reset_gradients();
    const at::Tensor loss =
        decoder_.loss(input, {labels.clamp_min(0), weights, ahead_weights(input, counted)});
    torch::autograd::backward({loss}, {});
    optimizer_.finish_gradients();
    const double expected_loss = stored_tensor(golden_, "loss").item<double>();
    differences_.loss = std::abs(loss.item<double>() - expected_loss) / std::abs(expected_loss);
    compare_gradients();
    return differences_;
  }

 private:
  // Of the heads for tokens further ahead, as train::Step gives them.
  std::vector<at::Tensor> ahead_weights(const nn::DecoderInput& input, const at::Tensor& counted) {
    std::vector<at::Tensor> weights;
    for (int64_t depth = 0; depth < spec_.mtp.num_layers; ++depth) {
      const at::Tensor shifted = nn::shifted_within_segments(
          counted.to(parameters_.flat().scalar_type()), input.segment_starts, depth + 1);
      weights.push_back(shifted * (spec_.mtp.loss_scaling_factor / spec_.mtp.num_layers) /
                        shifted.sum());
    }
    return weights;
  }

  void compare_gradients() {
    const auto has = [&](const std::string& name) {
      return golden_.find("grad." + name) != nullptr;
    };
    double most = 0;
    for (const auto& entry : golden_.entries()) {
      if (entry.name.starts_with("grad."))
        most = std::max(most, largest(stored_tensor(golden_, entry.name)));
    }
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const model::ParameterEntry& entry = parameters_.entry(i);
      if (entry.buffer) continue;
      const auto& also = entry.hugging_face_also;
      const bool other = !also.empty() && !has(entry.hugging_face[0].name) && has(also[0].name);
      for (const auto& piece : other ? also : entry.hugging_face) {
        compare_gradient(i, piece, has(piece.name), most);
      }
    }
  }

  void compare_gradient(size_t parameter, const model::ForeignPiece& piece, bool known,
                        double most) {
    const at::Tensor ours = own_rows(piece, parameters_.at(parameter).grad()).to(at::kDouble);
    // A tensor that the reference has no gradient for has none here.
    at::Tensor theirs = ours.new_zeros(ours.sizes());
    double size = 0;
    if (known) {
      const at::Tensor expected = stored_tensor(golden_, "grad." + piece.name).to(at::kDouble);
      theirs = foreign_rows(piece, expected);
      size = largest(expected);
    }
    const double difference = largest(ours - theirs) / std::max(size, kSmallestShare * most);
    if (difference <= differences_.gradients) return;
    differences_.gradients = difference;
    differences_.worst_gradient = piece.name;
  }

  formats::SafetensorsFile golden_;
  model::ModelSpec spec_;
  nn::ParameterSet parameters_;
  optim::FlatOptimizer optimizer_;
  nn::Decoder decoder_;
  Differences differences_;
};

OrderedJson described(const Differences& d) {
  return {{"logits", d.logits},
          {"loss", d.loss},
          {"gradients", d.gradients},
          {"worst_gradient", d.worst_gradient}};
}

OrderedJson check(const std::filesystem::path& folder) {
  OrderedJson result = {{"name", folder.filename().string()}};
  try {
    result["fp64"] = described(Check(folder, at::kDouble).run());
    result["fp32"] = described(Check(folder, at::kFloat).run());
  } catch (const std::exception& error) {
    result["error"] = error.what();
  }
  return result;
}

}  // namespace
}  // namespace qianli::testing

int main(int count, char** arguments) {
  qianli::device::start();
  for (int i = 1; i < count; ++i) {
    std::printf("%s\n", qianli::testing::check(arguments[i]).dump().c_str());
    std::fflush(stdout);
  }
  return 0;
}
