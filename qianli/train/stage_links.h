// Lists of tensors on their way between the stages of a pipeline. Several may be on an edge at
// once; they arrive in the order they were sent. From one stage to another all edges are one way,
// as a schedule has it (plan/schedule.h): what is sent first is asked for first.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "qianli/dist/group.h"

namespace qianli::train {

using Tensors = std::vector<at::Tensor>;  // undefined ones keep their places

// What must be known of a tensor before it comes.
struct Form {
  std::vector<int64_t> sizes;
  at::ScalarType dtype = at::kFloat;
};
using Forms = std::vector<std::optional<Form>>;  // absent: undefined
Forms forms_of(const Tensors& tensors);

// One end of an edge: the other stage, and a number that both give the messages of that edge.
struct Link {
  int64_t peer = 0;
  int64_t edge = 0;
};

class StageLinks {
 public:
  // The stages in order; `device` is where tensors are received.
  StageLinks(dist::Group stages, at::Device device) : stages_(std::move(stages)), device_(device) {}

  // Tensors of any shapes. Messages of an edge that have the same `kind` have the same forms: the
  // first of a kind tells them ahead, so that later ones cost no message more, and lengths of
  // sequences may change from one microbatch to the next.
  void send(const Tensors& tensors, const Link& link, int64_t kind);
  // Tensors whose forms the receiver knows.
  void send(const Tensors& tensors, const Link& link);

  class Arriving;
  using Arrival = std::shared_ptr<Arriving>;
  // Takes the place of the message; it is there after wait(), which returns it.
  Arrival receive(const Link& link, int64_t kind);
  Arrival receive(const Link& link, const Forms& forms);
  static Tensors wait(const Arrival& arrival);

  // Until all that was sent has left.
  void finish();

  const dist::Group& stages() const { return stages_; }
  // Of a message that tells forms ahead.
  static constexpr int64_t kFormBytes = 8 * 49;

 private:
  using Kinds = std::map<std::pair<int64_t, int64_t>, Forms>;  // by edge and kind
  void start_send(const at::Tensor& tensor, const Link& link);
  // Before anything else is asked of `peer`: tensors that it has sent, whose forms were not known.
  void ask_for_earlier(int64_t peer);

  dist::Group stages_;
  at::Device device_;
  Kinds sent_, received_;
  std::map<int64_t, std::deque<dist::Pending>> leaving_;  // by edge
  std::map<int64_t, Arrival> untold_;  // by peer: the last whose forms were not known
};

}  // namespace qianli::train
