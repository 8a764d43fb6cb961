// Numbers for Prometheus (text exposition format 0.0.4).
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "qianli/serve/backend.h"

namespace qianli::serve {

class Metrics {
 public:
  void count_request(const std::string& endpoint, int status);
  void count_abandoned();  // clients that left before the end
  // Of one text: until its first piece, and in all.
  void time_answer(double first_seconds, double seconds);
  std::string text(const Load& load) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  int64_t abandoned_ = 0, answers_ = 0;
  double first_seconds_ = 0, seconds_ = 0;
};

}  // namespace qianli::serve
