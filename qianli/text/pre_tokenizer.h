// The pre-tokenizers of tokenizer.json as a list of steps; pieces come out one by one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/text/pattern.h"

namespace qianli::text {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class PreTokenizer {
 public:
  // `invert` swaps matches and what lies between them.
  void add_split(std::unique_ptr<const Pattern> pattern, SplitBehavior behavior, bool invert);
  // A space before every piece that does not begin with one (ByteLevel's add_prefix_space).
  void add_prefix_space();
  enum class Prepend { kAlways, kFirst, kNever };
  // Spaces become `replacement`; pieces then begin with it: all, the first of the text, none.
  void add_metaspace(std::string replacement, Prepend prepend);
  // Pieces become their bytes in the byte-level alphabet. Where this is the last step the text is
  // left as it is and byte_level() is true: the model then reads bytes.
  void add_byte_level() { byte_level_ = true; }
  bool byte_level() const { return byte_level_; }
  bool splits() const { return !steps_.empty(); }

  // Buffers of one encoding thread: the changed text of every step.
  using Scratch = std::vector<std::string>;
  using Sink = std::function<void(std::string_view piece)>;
  // `at_start`: the text begins where the whole input begins. Pieces are never empty.
  void run(std::string_view text, bool at_start, Scratch& scratch, const Sink& sink) const;

 private:
  enum class Kind { kSplit, kPrefixSpace, kMetaspace, kSpellBytes };
  struct Step {
    Kind kind;
    std::unique_ptr<const Pattern> pattern = nullptr;  // of kSplit
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::string replacement = {};  // of spaces, for kMetaspace
    Prepend prepend = Prepend::kNever;
  };
  struct Run {
    Scratch& scratch;
    const Sink& sink;
  };
  void add(Step step);
  void step(size_t index, std::string_view text, bool at_start, const Run& run) const;
  void split(size_t index, std::string_view text, bool at_start, const Run& run) const;
  void split_merging(size_t index, std::string_view text, bool at_start, const Run& run) const;
  void change(size_t index, std::string_view text, bool at_start, const Run& run) const;
  static void put_metaspace(const Step& step, std::string_view text, bool at_start,
                            std::string& out);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace qianli::text
