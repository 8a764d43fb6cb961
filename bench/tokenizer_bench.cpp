// tokenizer_bench MODEL FILE: how fast one thread encodes the lines of a file, and how long opening
// the tokenizer takes. tools/reference/bench_tokenizers.py runs it beside the original libraries.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <string_view>
#include <vector>

#include "qianli/text/tokenizer.h"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

void run(const char* model, const char* file) {
  const auto begin = Clock::now();
  const auto tokenizer = qianli::text::Tokenizer::load(model);
  const double load = seconds_since(begin);
  const std::string text = qianli::read_file(file, qianli::FileRole::kData);
  double best = 1e9;
  size_t tokens = 0;
  std::vector<int32_t> ids;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = Clock::now();
    tokens = 0;
    for (const std::string_view line : lines_of(text)) {
      ids.clear();
      tokenizer->encode_to(line, false, ids);
      tokens += ids.size();
    }
    best = std::min(best, seconds_since(start));
  }
  fmt::print("{{\"load_seconds\": {:.4f}, \"mb_per_second\": {:.2f}, \"tokens\": {}}}\n", load,
             1e-6 * static_cast<double>(text.size()) / best, tokens);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: tokenizer_bench MODEL FILE\n");
    return 2;
  }
  try {
    run(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
