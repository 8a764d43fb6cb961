#include "qianli/text/pre_tokenizer.h"

#include <iterator>
#include <utility>

#include "qianli/text/bpe_model.h"

namespace qianli::text {

void PreTokenizer::add_split(std::unique_ptr<const Pattern> pattern, SplitBehavior behavior,
                             bool invert) {
  add({.kind = Kind::kSplit,
       .pattern = std::move(pattern),
       .behavior = behavior,
       .invert = invert});
}
void PreTokenizer::add_prefix_space() { add({.kind = Kind::kPrefixSpace}); }
void PreTokenizer::add_metaspace(std::string replacement, Prepend prepend) {
  add({.kind = Kind::kMetaspace, .replacement = std::move(replacement), .prepend = prepend});
}

// What stands behind ByteLevel works on the spelled bytes.
void PreTokenizer::add(Step step) {
  if (std::exchange(byte_level_, false)) steps_.push_back({.kind = Kind::kSpellBytes});
  steps_.push_back(std::move(step));
}

void PreTokenizer::run(std::string_view text, bool at_start, Scratch& scratch,
                       const Sink& sink) const {
  if (text.empty()) return;
  if (scratch.size() < steps_.size()) scratch.resize(steps_.size());
  step(0, text, at_start, {scratch, sink});
}

void PreTokenizer::step(size_t index, std::string_view text, bool at_start, const Run& run) const {
  if (index == steps_.size()) return run.sink(text);
  const Step& step = steps_[index];
  if (step.kind != Kind::kSplit) return change(index, text, at_start, run);
  if (step.behavior == SplitBehavior::kIsolated || step.behavior == SplitBehavior::kRemoved) {
    return split(index, text, at_start, run);
  }
  split_merging(index, text, at_start, run);
}

// Isolated and Removed need no look at the neighbours: pieces go on as they are found.
void PreTokenizer::split(size_t index, std::string_view text, bool at_start, const Run& run) const {
  const Step& self = steps_[index];
  const bool keeps_matches = self.behavior == SplitBehavior::kIsolated || self.invert;
  const bool keeps_gaps = self.behavior == SplitBehavior::kIsolated || !self.invert;
  const auto pass = [&](size_t begin, size_t end, bool kept) {
    if (kept && begin < end) {
      step(index + 1, text.substr(begin, end - begin), at_start && begin == 0, run);
    }
  };
  Match matches[64];
  size_t done = 0;
  for (size_t count = std::size(matches); count == std::size(matches);) {
    count = self.pattern->find(text, done, matches);
    for (size_t i = 0; i < count; ++i) {
      pass(done, matches[i].begin, keeps_gaps);
      pass(matches[i].begin, matches[i].end, keeps_matches);
      done = matches[i].end;
    }
  }
  pass(done, text.size(), keeps_gaps);
}

// The other behaviours join parts: the list of parts first, then the joining.
void PreTokenizer::split_merging(size_t index, std::string_view text, bool at_start,
                                 const Run& run) const {
  struct Part {
    size_t begin, end;
    bool match;
  };
  const Step& self = steps_[index];
  std::vector<Part> parts;
  Match matches[64];
  size_t done = 0;
  for (size_t count = std::size(matches); count == std::size(matches);) {
    count = self.pattern->find(text, done, matches);
    for (size_t i = 0; i < count; ++i) {
      if (done < matches[i].begin) parts.push_back({done, matches[i].begin, self.invert});
      parts.push_back({matches[i].begin, matches[i].end, !self.invert});
      done = matches[i].end;
    }
  }
  if (done < text.size()) parts.push_back({done, text.size(), self.invert});

  const auto joins = [&](const Part& left, const Part& right) {
    switch (self.behavior) {
      case SplitBehavior::kMergedWithPrevious:
        return right.match && !left.match;
      case SplitBehavior::kMergedWithNext:
        return left.match && !right.match;
      default:
        return left.match == right.match;
    }
  };
  for (size_t i = 0; i < parts.size();) {
    size_t last = i;
    while (last + 1 < parts.size() && joins(parts[last], parts[last + 1])) ++last;
    const size_t begin = parts[i].begin;
    step(index + 1, text.substr(begin, parts[last].end - begin), at_start && begin == 0, run);
    i = last + 1;
  }
}

void PreTokenizer::change(size_t index, std::string_view text, bool at_start,
                          const Run& run) const {
  const Step& self = steps_[index];
  std::string& changed = run.scratch[index];
  changed.clear();
  if (self.kind == Kind::kSpellBytes) {
    changed = to_byte_level(text);
  } else if (self.kind == Kind::kMetaspace) {
    put_metaspace(self, text, at_start, changed);
  } else {
    if (text[0] != ' ') changed = ' ';
    changed += text;
  }
  step(index + 1, changed, at_start, run);
}

void PreTokenizer::put_metaspace(const Step& step, std::string_view text, bool at_start,
                                 std::string& out) {
  for (const char c : text) {
    if (c == ' ') {
      out += step.replacement;
    } else {
      out += c;
    }
  }
  const bool prepends =
      step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && at_start);
  if (prepends && out.compare(0, step.replacement.size(), step.replacement) != 0) {
    out.insert(0, step.replacement);
  }
}

}  // namespace qianli::text
