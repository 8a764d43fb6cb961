#include "qianli/dist/rank_threads.h"

#include <ATen/Parallel.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include <exception>
#include <thread>

#include "qianli/dist/gloo_backend.h"
#include "qianli/dist/world_state.h"

namespace qianli::dist {

class RankThreads {
 public:
  static World world(int64_t rank, int64_t size, const c10::intrusive_ptr<c10d::Store>& store,
                     std::chrono::milliseconds deadline, const Devices& devices) {
    auto state = std::make_shared<World::State>();
    state->rendezvous = {.rank = rank, .size = size, .deadline = deadline};
    state->loopback = true;
    state->store = store;
    if (size > 1) state->activity = Activity::start(store->clone(), rank, size);
    if (size > 1) state->use(devices);
    return World(state);
  }
};

void run_ranks(int64_t size, const std::function<void(const World&)>& body,
               std::chrono::milliseconds deadline,
               const std::function<Devices(int64_t rank)>& devices) {
  set_up_c10d();
  const auto store = c10::make_intrusive<c10d::HashStore>();
  store->setTimeout(deadline);
  std::vector<std::exception_ptr> own(static_cast<size_t>(size)), lost(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      at::set_num_threads(1);
      const auto r = static_cast<size_t>(rank);
      try {
        body(RankThreads::world(rank, size, store, deadline, devices ? devices(rank) : Devices{}));
      } catch (const LostRankError&) {
        lost[r] = std::current_exception();
      } catch (...) {
        own[r] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto* errors : {&own, &lost}) {
    for (const std::exception_ptr& error : *errors) {
      if (error) std::rethrow_exception(error);
    }
  }
}

}  // namespace qianli::dist
