// A parameter is a handle, not an autograd leaf. Ops read value() and hand their weight gradient back,
// so that accumulation into the flat buffer, freezing, sharding or quantising a weight are properties of
// the parameter and no layer knows of them. Autograd carries activations only.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

namespace qianli::ops {

class Parameter {
 public:
  Parameter(std::string name, at::Tensor value) : name_(std::move(name)), value_(std::move(value)) {}
  Parameter(const Parameter&) = delete;
  Parameter& operator=(const Parameter&) = delete;

  const std::string& name() const { return name_; }
  // In the compute dtype. Its memory may be there only while the ranks that share the parameter have
  // gathered it; reading it at another time is an error. Hold the result while its memory is used:
  // of a parameter that is kept in another form it is made for each call.
  at::Tensor value() const { return make_ ? make_() : value_; }
  at::IntArrayRef sizes() const { return value_.sizes(); }
  void place_value(at::Tensor value) { value_ = std::move(value); }
  // From now on value() is what `make` returns. `like`: of its shape, whatever it holds.
  void make_value(at::Tensor like, std::function<at::Tensor()> make) {
    value_ = std::move(like);
    make_ = std::move(make);
  }
  bool trainable() const { return grad_.defined(); }

  // Makes the parameter trainable: its gradient lives in `buffer` (shape of value; float32, or float64
  // for a float64 value), usually a view into the flat gradient buffer. `need` gives that memory: it
  // is called before the first contribution since reset_grad().
  void attach_grad(at::Tensor buffer, std::function<void()> need = {}) {
    grad_ = std::move(buffer);
    need_ = std::move(need);
  }
  void freeze() { grad_ = at::Tensor(); }

  // The gradient accumulated since reset_grad(); zeros when nothing arrived.
  const at::Tensor& grad();
  // Forgets the gradient without touching memory: the first contribution overwrites.
  void reset_grad() { started_ = false; }

  // For kernels that add: the buffer, zeroed before the first contribution.
  at::Tensor& grad_to_add();
  // For GEMMs: the buffer and the factor of its present content (0 for the first contribution).
  struct Accumulation {
    at::Tensor& buffer;
    double beta;
  };
  Accumulation grad_to_accumulate();

 private:
  std::string name_;
  at::Tensor value_;
  std::function<at::Tensor()> make_;  // empty: value_ is the value
  // The first contribution is to come.
  void start();

  at::Tensor grad_;
  std::function<void()> need_;
  bool started_ = false;
};

// An empty tensor that requires a gradient. Ops whose only differentiable input is a parameter take it
// along, so that autograd visits them.
const at::Tensor& gradient_anchor();

}  // namespace qianli::ops
