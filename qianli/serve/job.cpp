#include "qianli/serve/job.h"

namespace qianli::serve {

Job::Job(Backend& backend, std::vector<Work> works)
    : backend_(backend), mailbox_(std::make_shared<Mailbox>()) {
  try {
    for (size_t index = 0; index < works.size(); ++index) {
      const auto sink = [mailbox = mailbox_, index](Piece piece) {
        {
          const std::lock_guard lock(mailbox->mutex);
          mailbox->items.push_back({index, std::move(piece)});
        }
        mailbox->arrived.notify_one();
      };
      ids_.push_back(backend.start(std::move(works[index]), sink));
      ++open_;
    }
  } catch (...) {
    cancel_all();
    throw;
  }
}

Job::~Job() {
  if (!finished()) cancel_all();
}

void Job::cancel_all() {
  for (const uint64_t id : ids_) backend_.cancel(id);
}

std::optional<Job::Item> Job::next(std::chrono::milliseconds patience) {
  std::unique_lock lock(mailbox_->mutex);
  const auto some = [&] { return !mailbox_->items.empty(); };
  if (!mailbox_->arrived.wait_for(lock, patience, some)) return std::nullopt;
  Item item = std::move(mailbox_->items.front());
  mailbox_->items.pop_front();
  if (item.piece.finish) --open_;
  return item;
}

}  // namespace qianli::serve
