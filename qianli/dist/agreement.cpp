#include "qianli/dist/agreement.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <fmt/core.h>

#include <algorithm>
#include <exception>
#include <string_view>

namespace qianli::dist {
namespace {

at::Tensor bytes_of(const std::string& text) {
  return at::from_blob(const_cast<char*>(text.data()), {static_cast<int64_t>(text.size())},
                       at::kByte);
}

std::string broadcast(const Group& group, std::string text) {
  const at::Tensor size = at::tensor(static_cast<int64_t>(text.size()), at::kLong);
  group.broadcast(size, 0);
  text.resize(static_cast<size_t>(size.item<int64_t>()));
  group.broadcast(bytes_of(text), 0);
  return text;
}

// On rank 0 everyone's, elsewhere nothing.
std::vector<std::string> gather(const Group& group, const std::string& own) {
  const at::Tensor sizes =
      group.all_gather(at::tensor({static_cast<int64_t>(own.size())}, at::kLong));
  if (group.rank() != 0) {
    if (!own.empty()) group.start_send(bytes_of(own), 0).wait();
    return {};
  }
  std::vector<std::string> texts = {own};
  for (int64_t rank = 1; rank < group.size(); ++rank) {
    texts.emplace_back(static_cast<size_t>(sizes[rank].item<int64_t>()), '\0');
    if (!texts.back().empty()) group.start_receive(bytes_of(texts.back()), rank).wait();
  }
  return texts;
}

// What an action said: "+" and its text, or "-" and its error.
struct Outcome {
  std::string text;
  std::exception_ptr error;
};

Outcome run(const TextAction& action) {
  try {
    return {"+" + action(), {}};
  } catch (const std::exception& error) {
    return {std::string("-") + error.what(), std::current_exception()};
  }
}

}  // namespace

std::string first_rank(const Group& group, const TextAction& action) {
  if (group.alone()) return action();
  Outcome outcome;
  if (group.rank() == 0) outcome = run(action);
  outcome.text = broadcast(group, std::move(outcome.text));
  if (outcome.error) std::rethrow_exception(outcome.error);
  if (outcome.text.front() == '-') {
    throw LostRankError(
        fmt::format("rank {} failed: {}", group.ranks()[0], outcome.text.substr(1)));
  }
  return outcome.text.substr(1);
}

std::vector<std::string> every_rank(const Group& group, const TextAction& action) {
  if (group.alone()) return {action()};
  const Outcome own = run(action);
  std::vector<std::string> texts = gather(group, own.text);
  std::string problem;
  for (size_t rank = 0; rank < texts.size() && problem.empty(); ++rank) {
    if (texts[rank].front() == '-') {
      problem = fmt::format("rank {} failed: {}", group.ranks()[rank], texts[rank].substr(1));
    }
  }
  problem = broadcast(group, std::move(problem));
  if (own.error) std::rethrow_exception(own.error);
  if (!problem.empty()) throw LostRankError(problem);
  for (std::string& text : texts) text.erase(0, 1);
  return texts;
}

namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

// The first line in which a rank differs from the first one; empty: none does.
std::string difference(const Group& group, const std::string& what,
                       const std::vector<std::string>& texts) {
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    const auto expected = lines_of(texts[0]), got = lines_of(texts[rank]);
    size_t line = 0;
    while (line < expected.size() && line < got.size() && expected[line] == got[line]) ++line;
    const auto at = [&](const auto& lines) { return line < lines.size() ? lines[line] : ""; };
    return fmt::format("expected {} '{}' as on rank {}, got '{}' on rank {}", what, at(expected),
                       group.ranks()[0], at(got), group.ranks()[rank]);
  }
  return {};
}

}  // namespace

void expect_same(const Group& group, const std::string& what, const std::string& text) {
  const auto texts = every_rank(group, [&] { return text; });
  const std::string problem = first_rank(group, [&] { return difference(group, what, texts); });
  if (problem.empty()) return;
  throw ConfigError("dist", problem,
                    "start all ranks with the same program, configuration and data");
}

}  // namespace qianli::dist
