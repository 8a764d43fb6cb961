#include "qianli/dist/activity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <future>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "qianli/base/trace.h"

namespace qianli::dist {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kAnswerTime = 5s;     // of the store, when the job is already lost
constexpr size_t kGroupsShown = 12;  // of ranks that do the same
constexpr size_t kRanksShown = 16;

std::string key_of(int64_t rank) { return fmt::format("activity/{}", rank); }

// Machines of a job have clocks that agree to a fraction of a second.
int64_t wall_milliseconds() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// The store answers one rank at a time: the more there are, the less often each speaks.
std::chrono::milliseconds interval(int64_t ranks) { return 500ms + ranks * 1ms; }

// What a rank said last.
struct Said {
  std::string text;
  std::chrono::milliseconds silent{0};  // since
};

std::vector<Said> read(c10d::Store& store, int64_t ranks) {
  std::vector<std::string> keys;
  for (int64_t rank = 0; rank < ranks; ++rank) keys.push_back(key_of(rank));
  const auto values = store.multiGet(keys);
  const int64_t now = wall_milliseconds();
  std::vector<Said> said;
  for (const auto& value : values) {
    const std::string text(value.begin(), value.end());
    said.push_back({text.substr(text.find(' ') + 1),
                    std::chrono::milliseconds(now - std::atoll(text.c_str()))});
  }
  return said;
}

// What `ask` returns; nothing where it throws or does not end in time. It runs on a thread of its
// own, which is then left alone: a store in a stopped process never answers.
template <class Ask>
auto answer_of(const Ask& ask) -> std::optional<decltype(ask())> {
  auto promise = std::make_shared<std::promise<std::optional<decltype(ask())>>>();
  auto answer = promise->get_future();
  std::thread([promise, ask] {
    try {
      promise->set_value(ask());
    } catch (const std::exception&) {
      promise->set_value({});
    }
  }).detach();
  if (answer.wait_for(kAnswerTime) != std::future_status::ready) return {};
  return answer.get();
}

double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

// Those that said the same together, the longest silent first.
std::string summary(const std::vector<Said>& said, std::chrono::milliseconds often) {
  std::map<std::pair<double, std::string>, std::vector<int64_t>> ranks_of;
  for (size_t rank = 0; rank < said.size(); ++rank) {
    // Those who spoke in time are told apart by what they do alone.
    const double silent = said[rank].silent > 3 * often ? seconds(said[rank].silent) : 0;
    ranks_of[{-silent, said[rank].text}].push_back(static_cast<int64_t>(rank));
  }
  std::vector<std::string> parts;
  for (const auto& [what, ranks] : ranks_of) {
    if (parts.size() == kGroupsShown) {
      parts.push_back(fmt::format("and {} more", ranks_of.size() - kGroupsShown));
      break;
    }
    std::string part = fmt::format("{}: {}", name_of(ranks), what.second);
    if (what.first < 0) part += fmt::format(", not heard of for {:.1f} s", -what.first);
    parts.push_back(std::move(part));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace

std::string name_of(const std::vector<int64_t>& ranks) {
  const auto shown = static_cast<int64_t>(std::min(ranks.size(), kRanksShown));
  std::string text = fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks",
                                 fmt::join(ranks.begin(), ranks.begin() + shown, ", "));
  if (ranks.size() > kRanksShown) text += fmt::format(" and {} more", ranks.size() - kRanksShown);
  return text;
}

std::shared_ptr<Activity> Activity::start(c10::intrusive_ptr<c10d::Store> store, int64_t rank,
                                          int64_t size) {
  std::shared_ptr<Activity> activity(new Activity(std::move(store), rank, size));
  trace::listen([weak = std::weak_ptr(activity)](const std::string& work) {
    if (const auto self = weak.lock()) self->begin(work);
  });
  return activity;
}

Activity::Activity(c10::intrusive_ptr<c10d::Store> store, int64_t rank, int64_t size)
    : store_(std::move(store)), rank_(rank), size_(size), thread_([this] { tell_regularly(); }) {}

void Activity::begin(const std::string& work) {
  const std::lock_guard lock(mutex_);
  is_new_ = is_new_ || !work_ || work_->empty();
  work_ = work;
  if (is_new_) changed_.notify_all();
}

Activity::~Activity() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::string Activity::text() const {
  if (ends_) return "has left the job";
  std::string text = !work_ ? "gets ready" : work_->empty() ? "between two pieces of work" : *work_;
  for (const auto& [what, since] : waiting_) {
    const double seconds = std::chrono::duration<double>(Clock::now() - since).count();
    text += fmt::format(", waits {:.1f} s for {}", seconds, what);
  }
  return text;
}

void Activity::tell(const std::string& text) {
  const std::string dated = fmt::format("{} {}", wall_milliseconds(), text);
  try {
    store_->set(key_of(rank_), std::vector<uint8_t>(dated.begin(), dated.end()));
  } catch (const std::exception&) {
    // The store is gone, and with it all who would ask.
  }
}

void Activity::tell_regularly() {
  std::unique_lock lock(mutex_);
  for (bool last = false; !last;) {
    last = ends_;
    is_new_ = false;
    const std::string now = text();
    lock.unlock();
    tell(now);
    lock.lock();
    if (!last) changed_.wait_for(lock, interval(size_), [this] { return ends_ || is_new_; });
  }
}

std::string Activity::of_all() {
  std::string now;
  {
    const std::lock_guard lock(mutex_);
    now = text();
  }
  tell(now);
  const auto said =
      answer_of([store = store_, size = size_] { return read(*store->clone(), size); });
  return said ? summary(*said, interval(size_))
              : "what the others were doing is not known: rank 0, which keeps it, does not answer";
}

std::string Activity::missed(const std::vector<int64_t>& ranks,
                             std::chrono::milliseconds deadline) const {
  const auto said =
      answer_of([store = store_, size = size_] { return read(*store->clone(), size); });
  if (!said) return "rank 0, which keeps what all ranks do, does not answer";
  for (const int64_t rank : ranks) {
    const Said& its = said->at(static_cast<size_t>(rank));
    if (its.silent > deadline)
      return fmt::format("rank {} is not heard of for {:.1f} s", rank, seconds(its.silent));
  }
  return {};
}

void Activity::wait_while_heard(const std::vector<int64_t>& ranks,
                                std::chrono::milliseconds deadline, std::function<void()> wait) {
  auto promise = std::make_shared<std::promise<void>>();
  std::future<void> end = promise->get_future();
  std::thread([promise, wait = std::move(wait)] {
    try {
      wait();
      promise->set_value();
    } catch (...) {
      promise->set_exception(std::current_exception());
    }
  }).detach();
  while (end.wait_for(deadline / 4) != std::future_status::ready) {
    if (const std::string who = missed(ranks, deadline); !who.empty())
      throw std::runtime_error(who);
  }
  end.get();
}

Activity::Waiting::Waiting(Activity* activity, const std::string& what) : activity_(activity) {
  if (!activity_) return;
  const std::lock_guard lock(activity_->mutex_);
  place_ = activity_->waiting_.emplace(activity_->waiting_.end(), what, Clock::now());
}

Activity::Waiting::~Waiting() {
  if (!activity_) return;
  const std::lock_guard lock(activity_->mutex_);
  activity_->waiting_.erase(place_);
}

}  // namespace qianli::dist
