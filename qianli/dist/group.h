// A set of ranks that communicate, and what they say to each other, named by meaning. A group is a
// value: whoever needs one is given it, and there is none for the whole process. A group of one
// returns its input, so that serial code has no branches.
//
// All ranks of a group call the same collectives in the same order with tensors of fitting sizes:
// Gloo ends the process where sizes differ. Tensors are contiguous. Every call has the deadline of
// the World the group is from; LostRankError names the collective where it is over or a peer is
// gone.
//
// Tensors of the host travel by Gloo, those of the World's device by its own library (NCCL, HCCL).
// Of these:
// - wait() makes the current stream wait and returns; results are there for what the device is
//   given next. A collective is lost when the stream has not come past it the deadline after
//   wait(): its communicators end, and the next call of any group of the World throws. No step ends
//   without such a call, so nothing is built on what a lost collective left.
// - Messages travel on open routes, in the order of their calls whatever their tags: the receiver
//   asks for them in the order in which they are sent.
// - barrier() is one of the hosts; devices may still be at work.
#pragma once

#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "qianli/base/error.h"

namespace qianli::dist {

struct LostRankError : UnavailableError {
  LostRankError(std::string_view problem, std::string_view hint = {})
      : UnavailableError("dist", problem, hint) {}
};

// How long a collective may take: as long as the deadline, or as long as no rank of the group is
// silent for longer than that. Every rank says every second that it is there.
enum class Patience { kDeadline, kWhileHeard };

enum class Reduction { kSum, kAverage, kMax, kMin };

// Bytes that this rank sent, by the volumes of ring algorithms: an all_reduce of N bytes among k
// ranks 2 N (k - 1) / k; an all_gather to, or a reduce_scatter of, N bytes N (k - 1) / k.
struct Traffic {
  int64_t collectives = 0;
  double bytes = 0;
};

// A collective on its way. The tensors stay alive until wait(); destroying it without leaves it to
// end by itself.
class Pending {
 public:
  Pending() = default;  // ended
  void wait();

 private:
  friend class Group;
  struct State;
  explicit Pending(std::shared_ptr<State> state) : state_(std::move(state)) {}
  std::shared_ptr<State> state_;
};

// From one rank of a group to another.
struct Route {
  int64_t from = 0, to = 0;
  auto operator<=>(const Route&) const = default;
};

class Group {
 public:
  Group();               // of one rank
  int64_t rank() const;  // within the group
  int64_t size() const;
  bool alone() const { return size() == 1; }
  const std::vector<int64_t>& ranks() const;  // in the world
  const std::string& name() const;

  // In place.
  void all_reduce(const at::Tensor& values, Reduction reduction = Reduction::kSum) const;
  Pending start_all_reduce(const at::Tensor& values, Reduction reduction = Reduction::kSum) const;

  // [n, …] of every rank -> [size n, …], in the order of ranks.
  at::Tensor all_gather(const at::Tensor& part) const;
  Pending start_all_gather(const at::Tensor& whole, const at::Tensor& part) const;

  // Rank r gets the r-th of `size` equal parts of the reduced [size n, …].
  at::Tensor reduce_scatter(const at::Tensor& whole, Reduction reduction = Reduction::kSum) const;
  Pending start_reduce_scatter(const at::Tensor& part, const at::Tensor& whole,
                               Reduction reduction = Reduction::kSum) const;

  // Rows to and from each rank, counted along the first axis: [sum of sent, …] -> [sum of received,
  // …].
  at::Tensor all_to_all(const at::Tensor& rows, const std::vector<int64_t>& sent,
                        const std::vector<int64_t>& received) const;

  void broadcast(const at::Tensor& values, int64_t root) const;
  // The ways that messages of device tensors will take, between the same ranks as in the calls of
  // all others of the group; those open already stay. Messages between hosts need none.
  void open_routes(const std::vector<Route>& routes) const;
  // `peer` is a rank of the group, and not this one. Messages between two ranks with the same tag
  // arrive in the order of sending.
  Pending start_send(const at::Tensor& values, int64_t peer, int64_t tag = 0) const;
  Pending start_receive(const at::Tensor& values, int64_t peer, int64_t tag = 0) const;
  void barrier() const;

  // Of all calls so far, by all copies of the group on this rank.
  Traffic traffic() const;

 private:
  friend class World;
  friend class Pending;
  struct State;
  explicit Group(std::shared_ptr<State> state) : state_(std::move(state)) {}
  struct Carrier;
  template <class Start>
  Pending start(const char* what, const at::Tensor& values, double bytes, const Carrier& carrier,
                const Start& start) const;
  std::shared_ptr<State> state_;
};

}  // namespace qianli::dist
