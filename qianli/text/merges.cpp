#include "qianli/text/merges.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// Bytes to be hashed for all pairs: a hundred times what the largest public tokenizer needs.
constexpr uint64_t kMaxWork = uint64_t{1} << 31;

[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& got) {
  throw DataError("tokenizer", fmt::format("expected {} at {}, got {}", expected, where, got));
}

}  // namespace

MergeReader::MergeReader(const std::string& where, const BpeOptions& options,
                         const Vocabulary& vocabulary, size_t count)
    : where_(where), options_(options), vocabulary_(vocabulary) {
  table_.reserve(count);
  const bool plain =
      options.continuing_subword_prefix.empty() && options.end_of_word_suffix.empty();
  if (plain && !options.byte_level && !options.ignore_merges) {
    cutter_ = std::make_unique<PieceCutter>(vocabulary);
  }
}

int32_t MergeReader::id_of(std::string_view token) const {
  const auto id = vocabulary_.find(token);
  if (!id) refuse(where_, "merges of tokens of the vocabulary", fmt::format("'{}'", token));
  return *id;
}

void MergeReader::add(std::string_view left, std::string_view right) {
  const int32_t left_id = id_of(left), right_id = id_of(right);
  if (left.empty() || right.empty()) refuse(where_, "merges of two tokens", "an empty one");
  const size_t prefix = options_.continuing_subword_prefix.size();
  if (right.size() < prefix) refuse(where_, "the subword prefix", fmt::format("'{}'", right));
  merged_.assign(left).append(right.substr(prefix));
  table_.set(left_id, right_id, {rank_++, id_of(merged_)});
  if (!cutter_) return;
  // A byte token or unk is one symbol, not its characters: then nothing may be cut.
  if (is_whole_symbol(left, left_id) || is_whole_symbol(right, right_id)) {
    cutter_.reset();
  } else {
    cutter_->join(left, right);
  }
}

bool MergeReader::is_whole_symbol(std::string_view token, int32_t id) const {
  return (token.size() == 6 && token.starts_with("<0x") && token.ends_with(">")) ||
         id == options_.unk_id;
}

MergeTable implied_merges(const Vocabulary& vocabulary, const ImpliedMerges& rules,
                          const std::string& where) {
  struct Found {
    int32_t left, right, merged;
  };
  std::vector<Found> all;
  uint64_t work = 0;
  for (int32_t id = 0; id < vocabulary.end_id(); ++id) {
    const std::string_view token = vocabulary.token(id);
    if (token.size() < 2 || !rules.takes_part(id)) continue;
    work += static_cast<uint64_t>(token.size()) * token.size();
    if (work > kMaxWork) refuse(where, "tokens of reasonable length", "very long ones");
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if (rules.at_characters && is_continuation(token[cut])) continue;
      const auto left = vocabulary.find(token.substr(0, cut));
      if (!left || !rules.takes_part(*left)) continue;
      const auto right = vocabulary.find(token.substr(cut));
      if (!right || !rules.takes_part(*right)) continue;
      all.push_back({*left, *right, id});
      if (rules.seen) rules.seen(token.substr(0, cut), token.substr(cut));
    }
  }
  MergeTable table;
  table.reserve(all.size());
  for (const Found& found : all) {
    table.set(found.left, found.right, {rules.rank(found.merged), found.merged});
  }
  return table;
}

}  // namespace qianli::text
