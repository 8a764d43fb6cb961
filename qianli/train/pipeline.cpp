#include "qianli/train/pipeline.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <optional>

#include "qianli/base/trace.h"
#include "qianli/ops/deferred_gradients.h"
#include "qianli/plan/neighbours.h"

namespace qianli::train {
namespace {

using plan::Instruction;
using plan::Op;
using torch::autograd::Edge;

// One slice of a microbatch in one chunk, from its input to the gradients of its weights.
struct Unit {
  StageLinks::Arrival arriving_input, arriving_gradients;
  Tensors input;      // leaves of the graph: gradients gather in them
  Tensors output;     // until it is on its way; without the graph
  Forms forms;        // of the output
  Tensors gradients;  // of the output
  // Of the outputs that have a gradient, where the backward pass begins. No tensor of the output is
  // kept for it.
  struct End {
    Edge edge;
    size_t output;
  };
  std::vector<End> ends;
  ops::DeferredGradients::Pointer weight_gradients;
  Tensors input_gradients;
};

bool carries_gradient(const at::Tensor& tensor) {
  return tensor.defined() && at::isFloatingType(tensor.scalar_type());
}

// Forms of the gradients: integers have none.
Forms gradient_forms(Forms forms) {
  for (auto& form : forms) {
    if (form && !at::isFloatingType(form->dtype)) form.reset();
  }
  return forms;
}

class StageRun {
 public:
  StageRun(const plan::Schedule& schedule, const PipelineWork& work, StageLinks& links,
           at::Device device)
      : schedule_(schedule),
        work_(work),
        links_(links),
        device_(device),
        places_(schedule),
        stage_(static_cast<int32_t>(links.stages().rank())),
        program_(schedule.programs.at(static_cast<size_t>(stage_))),
        units_(static_cast<size_t>(schedule.chunks) * static_cast<size_t>(schedule.units())),
        last_unit_(static_cast<size_t>(schedule.chunks), -1) {
    for (const Instruction& i : program_) {
      if (i.op == Op::kBackward) last_unit_[static_cast<size_t>(i.chunk)] = number_of(i);
      if (i.op == Op::kWeightGrad) last_unit_[static_cast<size_t>(i.chunk)] = -1;
    }
  }

  void run() {
    for (const Instruction& instruction : program_) perform(instruction);
    links_.finish();
  }
  int64_t peak_units() const { return peak_units_; }

 private:
  void perform(const Instruction& i) {
    const trace::Span span([&] { return plan::name(i); });
    Unit& unit = unit_of(i.chunk, i);
    switch (i.op) {
      case Op::kForward:
        return forward(i, unit);
      case Op::kRecompute:
        return compute(i, unit, /*records=*/true);
      case Op::kBackward:
        backward(i, unit);
        work_.went_back(named(i));
        return release(i, unit);
      case Op::kInputGrad:
        unit.weight_gradients->defer();
        backward(i, unit);
        return work_.went_back(named(i));
      case Op::kWeightGrad:
        unit.weight_gradients->run();
        work_.went_back(named(i));
        return release(i, unit);
      case Op::kSendActivation:
        return links_.send(std::exchange(unit.output, {}), {i.peer, edge(i.peer, i.peer_chunk)},
                           work_.kind(i.microbatch, i.slice));
      case Op::kReceiveActivation:
        unit.arriving_input =
            links_.receive({i.peer, edge(stage_, i.chunk)}, work_.kind(i.microbatch, i.slice));
        return;
      case Op::kSendGradient:
        return links_.send(std::exchange(unit.input_gradients, {}),
                           {i.peer, edge(stage_, i.chunk) + 1});
      case Op::kReceiveGradient:
        unit.arriving_gradients =
            links_.receive({i.peer, edge(i.peer, i.peer_chunk) + 1}, gradient_forms(unit.forms));
        return;
      case Op::kHandOverActivation:
        unit_of(i.peer_chunk, i).input = std::exchange(unit.output, {});
        return;
      case Op::kHandOverGradient:
        unit_of(i.peer_chunk, i).gradients = std::exchange(unit.input_gradients, {});
        return;
      case Op::kReduceGradients:
        return work_.gradients_complete(i.chunk);
      case Op::kGatherParameters:
        return;  // the optimizer's step has gathered them
    }
  }

  // Among those of a chunk.
  int64_t number_of(const Instruction& i) const {
    return int64_t{i.microbatch} * schedule_.slices + i.slice;
  }
  Unit& unit_of(int32_t chunk, const Instruction& i) {
    return units_[static_cast<size_t>(chunk * schedule_.units() + number_of(i))];
  }
  PipelineWork::Unit named(const Instruction& i) const {
    return {.chunk = i.chunk,
            .microbatch = i.microbatch,
            .slice = i.slice,
            .again = i.op == Op::kRecompute,
            .completes = last_unit_[static_cast<size_t>(i.chunk)] == number_of(i)};
  }
  // Activations into a chunk; gradients out of it have the number behind.
  int64_t edge(int32_t stage, int32_t chunk) const { return int64_t{2} * places_.of(stage, chunk); }
  bool ends_the_model(int32_t chunk) const {
    return places_.of(stage_, chunk) + 1 == static_cast<int32_t>(schedule_.flow.size());
  }

  void forward(const Instruction& i, Unit& unit) {
    if (unit.arriving_input)
      unit.input = StageLinks::wait(std::exchange(unit.arriving_input, nullptr));
    compute(i, unit, /*records=*/!schedule_.forward_only && !i.checkpoint);
    if (schedule_.forward_only) unit.input.clear();
  }

  void compute(const Instruction& i, Unit& unit, bool records) {
    const bool again = i.op == Op::kRecompute;
    if (records) {
      for (at::Tensor& input : unit.input) {
        if (carries_gradient(input)) input.requires_grad_(true);
      }
      unit.weight_gradients = c10::make_intrusive<ops::DeferredGradients>();
      peak_units_ = std::max(peak_units_, ++units_kept_);
    }
    const at::AutoGradMode recording(records);
    const ops::DeferredGradients::Recording deferring(unit.weight_gradients);
    const Tensors output = work_.forward(named(i), unit.input);
    for (size_t k = 0; records && k < output.size(); ++k) {
      if (carries_gradient(output[k]) && output[k].requires_grad())
        unit.ends.push_back({torch::autograd::impl::gradient_edge(output[k]), k});
    }
    if (again) return;
    unit.forms = forms_of(output);
    if (ends_the_model(i.chunk)) return;
    for (const at::Tensor& tensor : output)
      unit.output.push_back(tensor.defined() ? tensor.detach() : at::Tensor());
  }

  void backward(const Instruction& i, Unit& unit) {
    if (unit.arriving_gradients)
      unit.gradients = StageLinks::wait(std::exchange(unit.arriving_gradients, nullptr));
    torch::autograd::edge_list roots;
    torch::autograd::variable_list gradients;
    for (const auto& [root, output] : unit.ends) {
      roots.push_back(root);
      gradients.push_back(ends_the_model(i.chunk) ? one(*unit.forms[output])
                                                  : unit.gradients.at(output));
    }
    unit.gradients.clear();
    unit.ends.clear();
    if (!roots.empty()) {
      torch::autograd::Engine::get_default_engine().execute(
          roots, gradients, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/true);
    }
    for (const at::Tensor& input : unit.input) {
      unit.input_gradients.emplace_back();
      if (!carries_gradient(input)) continue;
      // Where none arrived it is zero: the other stage waits for one.
      unit.input_gradients.back() = input.grad().defined() ? input.grad() : at::zeros_like(input);
    }
    unit.input.clear();
  }

  at::Tensor one(const Form& form) const {
    return at::ones(form.sizes, at::TensorOptions().dtype(form.dtype).device(device_));
  }

  void release(const Instruction& i, Unit& unit) {
    unit.weight_gradients.reset();
    --units_kept_;
    if (work_.released) work_.released(named(i));
  }

  const plan::Schedule& schedule_;
  const PipelineWork& work_;
  StageLinks& links_;
  at::Device device_;
  plan::Places places_;
  int32_t stage_;
  const plan::Program& program_;
  std::vector<Unit> units_;         // by chunk, microbatch, slice
  std::vector<int64_t> last_unit_;  // by chunk: the last to go back; -1: weights' gradients are
                                    // split off, and behind any backward pass
  int64_t units_kept_ = 0, peak_units_ = 0;
};

}  // namespace

Pipeline::Pipeline(dist::Group stages, at::Device device)
    : links_(std::move(stages), device), device_(device) {}

void Pipeline::run(const plan::Schedule& schedule, const PipelineWork& work) {
  TORCH_CHECK(schedule.stages == links_.stages().size(), "[pipeline] expected a schedule of ",
              links_.stages().size(), " stages, got ", schedule.stages);
  std::vector<dist::Route> routes;
  for (const auto& [from, to] : plan::neighbours(schedule.flow)) {
    routes.push_back({from, to});
    routes.push_back({to, from});
  }
  links_.stages().open_routes(routes);
  StageRun run(schedule, work, links_, device_);
  run.run();
  peak_units_ = run.peak_units();
}

}  // namespace qianli::train
