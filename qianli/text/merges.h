// Merges of BPE models, from lists of pairs and from the tokens alone.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "qianli/text/bpe_model.h"
#include "qianli/text/piece_cutter.h"

namespace qianli::text {

// Takes the pairs of a file in their order: the first has rank 0.
class MergeReader {
 public:
  // `where` names the list in errors. All three outlive the reader.
  MergeReader(const std::string& where, const BpeOptions& options, const Vocabulary& vocabulary,
              size_t count);
  // Throws DataError when the two or what they make together is no token.
  void add(std::string_view left, std::string_view right);

  MergeTable take_table() { return std::move(table_); }
  // Null where pieces cannot be cut.
  std::unique_ptr<const PieceCutter> take_cutter() { return std::move(cutter_); }

 private:
  int32_t id_of(std::string_view token) const;
  bool is_whole_symbol(std::string_view token, int32_t id) const;

  const std::string& where_;
  const BpeOptions& options_;
  const Vocabulary& vocabulary_;
  MergeTable table_;
  uint32_t rank_ = 0;
  std::unique_ptr<PieceCutter> cutter_;
  std::string merged_;
};

// Every pair of tokens that make a token together merges, with that token's rank.
struct ImpliedMerges {
  std::function<bool(int32_t id)> takes_part;  // as a part or as a result
  std::function<uint32_t(int32_t id)> rank;    // the lowest merges first; may be equal
  bool at_characters = true;                   // parts are whole characters
  std::function<void(std::string_view left, std::string_view right)> seen;  // may be empty
};
// Throws DataError where the tokens are so long that looking at all pairs would take minutes.
MergeTable implied_merges(const Vocabulary& vocabulary, const ImpliedMerges& rules,
                          const std::string& where);

}  // namespace qianli::text
