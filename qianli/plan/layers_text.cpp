// The texts that say how layers are split.
#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "qianli/base/error.h"
#include "qianli/plan/layers.h"

namespace qianli::plan {
namespace {

constexpr int64_t kMaxEntries = 65536;
constexpr int kMaxDepth = 16;

class Reader {
 public:
  Reader(std::string_view text, std::string_view form) : text_(text), form_(form) {}

  [[noreturn]] void refuse(const std::string& problem) const {
    const std::string shown(text_.substr(0, 60));
    throw ConfigError("parallel", fmt::format("expected layers as {}, got '{}{}': {} at {}", form_,
                                              shown, text_.size() > 60 ? "…" : "", problem, at_));
  }
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char wanted) {
    const bool found = peek() == wanted && at_ < text_.size();
    if (found) ++at_;
    return found;
  }
  void need(char wanted) {
    if (!take(wanted)) refuse(fmt::format("no '{}'", wanted));
  }
  int64_t number() {
    if (peek() < '0' || peek() > '9') refuse("no number");
    int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      value = value * 10 + (text_[at_] - '0');
      if (value > kMaxEntries) refuse(fmt::format("a number above {}", kMaxEntries));
    }
    return value;
  }
  int64_t repeats() {
    if (!take('*')) return 1;
    const int64_t count = number();
    if (count == 0) refuse("a repetition of nothing");
    return count;
  }
  bool ended() {
    peek();
    return at_ == text_.size();
  }
  void finish() {
    if (!ended()) refuse("more text");
  }

 private:
  std::string_view text_, form_;
  size_t at_ = 0;
};

std::vector<int64_t> numbers(Reader& reader) {
  std::vector<int64_t> found;
  do {
    found.push_back(reader.number());
    if (found.size() > kMaxEntries) reader.refuse("too many numbers");
  } while (reader.take(','));
  return found;
}

// The symbols of a layout with repetitions written out.
std::string symbols(Reader& reader, int depth) {
  std::string all;
  const auto add = [&](const std::string& part) {
    const auto count = static_cast<size_t>(reader.repeats());
    if (part.size() * count > kMaxEntries || all.size() + part.size() * count > kMaxEntries)
      reader.refuse(fmt::format("more than {} symbols", kMaxEntries));
    for (size_t i = 0; i < count; ++i) all += part;
  };
  while (!reader.ended() && reader.peek() != ')') {
    if (reader.take(',')) continue;
    if (reader.take('(')) {
      if (depth == kMaxDepth) reader.refuse("parentheses too deep");
      const std::string inside = symbols(reader, depth + 1);
      reader.need(')');
      add(inside);
      continue;
    }
    const char symbol = reader.peek();
    if (std::string_view("EtmL|").find(symbol) == std::string_view::npos)
      reader.refuse("no symbol of E, t, m, L, |");
    reader.take(symbol);
    add(std::string(1, symbol));
  }
  return all;
}

std::vector<std::string> chunks_of(const std::string& symbols) {
  std::vector<std::string> chunks(1);
  for (const char symbol : symbols) {
    if (symbol == '|') {
      chunks.emplace_back();
    } else {
      chunks.back() += symbol;
    }
  }
  return chunks;
}

int64_t count(const std::string& text, char symbol) { return std::ranges::count(text, symbol); }

// What holds of every layout, whatever the model.
void check_layout(const Reader& reader, const std::string& all,
                  const std::vector<std::string>& chunks, int64_t stages) {
  const auto total = static_cast<int64_t>(chunks.size());
  if (total % stages != 0) {
    reader.refuse(
        fmt::format("a multiple of {} stages is needed, there are {} parts", stages, total));
  }
  if (count(all, 'E') != 1 || !chunks.front().starts_with('E'))
    reader.refuse("one E is needed, at the beginning");
  if (count(all, 'L') != 1 || !chunks.back().ends_with('L'))
    reader.refuse("one L is needed, at the end");
  const int64_t mtp = count(all, 'm');
  if (mtp == 0) return;
  const size_t first = all.find('m');
  if (all.find('t', first) != std::string::npos) reader.refuse("every m comes after all t");
  const auto holder =
      std::ranges::find_if(chunks, [](const std::string& chunk) { return count(chunk, 'm') > 0; });
  const int64_t place = holder - chunks.begin();
  if (count(*holder, 'm') != mtp) reader.refuse("all m belong into one part");
  if (place < total - stages) reader.refuse("m belongs into the last chunk of a stage");
  if (place % stages == 0 && total > stages)
    reader.refuse("the first stage holds no m where stages have several chunks");
}

}  // namespace

LayerTable parse_layer_list(std::string_view text) {
  Reader reader(text, "1,3,3,1");
  LayerTable table;
  for (const int64_t count : numbers(reader)) table.push_back({count});
  reader.finish();
  return table;
}

LayerTable parse_layer_table(std::string_view text) {
  Reader reader(text, "[[11,11],[13,19]]");
  LayerTable table;
  size_t cells = 0;
  reader.need('[');
  do {
    reader.need('[');
    const std::vector<int64_t> row = numbers(reader);
    reader.need(']');
    const auto repeats = static_cast<size_t>(reader.repeats());
    cells += row.size() * repeats;
    if (cells > kMaxEntries) reader.refuse("too many numbers");
    table.insert(table.end(), repeats, row);
  } while (reader.take(','));
  reader.need(']');
  reader.finish();
  return table;
}

LayerSplit parse_layout(std::string_view text, int64_t stages) {
  Reader reader(text, "Ett|tt|ttt|tmL");
  if (stages < 1 || stages > kMaxEntries)
    reader.refuse(
        fmt::format("stages between 1 and {} are needed, there are {}", kMaxEntries, stages));
  const std::string all = symbols(reader, 0);
  reader.finish();
  const std::vector<std::string> chunks = chunks_of(all);
  check_layout(reader, all, chunks, stages);
  LayerSplit split{.layers = count(all, 't'),
                   .mtp_layers = count(all, 'm'),
                   .stages = stages,
                   .chunks = static_cast<int64_t>(chunks.size()) / stages};
  split.table.resize(static_cast<size_t>(stages));
  for (size_t i = 0; i < chunks.size(); ++i) {
    const size_t stage = i % static_cast<size_t>(stages);
    split.table[stage].push_back(count(chunks[i], 't'));
    if (count(chunks[i], 'm') > 0) split.mtp_stage = static_cast<int64_t>(stage);
  }
  return split;
}

}  // namespace qianli::plan
