#include "qianli/text/unigram_model.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/text/byte_tokens.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// The best way to write the bytes up to a place: its last token and where that begins.
struct PathEnd {
  double score = 0;
  int32_t id = -1;
  int32_t begin = -1;  // -1: no way yet
};

// Beyond it SentencePiece (since 0.2.3 at the latest) counts from here on anew, lest its floats
// lose the differences between ways.
constexpr double kLargestSum = 100000;

// SentencePiece's: no way of other tokens, whose scores are logarithms of probabilities, is better.
double score_of_user_defined(std::string_view text) {
  return static_cast<float>(0.1 * static_cast<double>(text.size() - 1));
}

void begin_sums_again(std::vector<PathEnd>& ends, size_t here, size_t reached) {
  const auto offset = static_cast<float>(ends[here].score);
  for (size_t i = here; i <= reached; ++i) {
    if (ends[i].begin >= 0) ends[i].score = static_cast<float>(ends[i].score) - offset;
  }
}

}  // namespace

struct UnigramModel::Buffers : Model::Scratch {
  std::vector<PathEnd> ends;
  std::vector<int32_t> path;  // ends of the tokens, the last token first
};

UnigramModel::UnigramModel(const Vocabulary& vocabulary, const std::vector<Piece>& pieces,
                           UnigramOptions options)
    : vocabulary_(vocabulary),
      options_(std::move(options)),
      scores_(static_cast<size_t>(vocabulary.end_id())),
      byte_ids_(byte_token_ids(vocabulary)) {
  std::vector<Trie::Entry> entries;
  for (const Piece& piece : pieces) {
    if (piece.text.empty()) continue;
    entries.push_back({piece.text, piece.id});
    scores_[static_cast<size_t>(piece.id)] =
        piece.user_defined ? score_of_user_defined(piece.text) : piece.score;
  }
  trie_ = Trie(std::move(entries));
}

std::unique_ptr<Model::Scratch> UnigramModel::make_scratch() const {
  return std::make_unique<Buffers>();
}

// Scores are added and compared as `Real`: SentencePiece's float, or the double of `tokenizers`.
template <class Real>
void UnigramModel::find_best_path(std::string_view piece, Buffers& buffers) const {
  auto& ends = buffers.ends;
  ends.assign(piece.size() + 1, PathEnd{});
  size_t reached = 0;
  const auto offer = [&](size_t begin, size_t end, int32_t id, Real score) {
    const Real sum = score + static_cast<Real>(ends[begin].score);
    PathEnd& target = ends[end];
    if (target.begin >= 0 && !(sum > static_cast<Real>(target.score))) return;
    target = {static_cast<double>(sum), id, static_cast<int32_t>(begin)};
    reached = std::max(reached, end);
  };
  for (size_t begin = 0; begin < piece.size();) {
    const size_t next = begin + decode_char(piece.data() + begin).size;
    if (options_.single_precision && std::abs(ends[begin].score) > kLargestSum)
      begin_sums_again(ends, begin, reached);
    bool has_character = false;
    trie_.each_prefix(piece, begin, [&](size_t end, int32_t id) {
      offer(begin, end, id, static_cast<Real>(scores_[static_cast<size_t>(id)]));
      has_character |= end == next;
    });
    if (!has_character) {
      offer(begin, next, options_.unk_id.value_or(-1), static_cast<Real>(options_.unk_score));
    }
    begin = next;
  }
}

void UnigramModel::append_unknown(std::string_view text, std::vector<int32_t>& ids) const {
  const auto byte_id = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (options_.unk_id && options_.byte_fallback &&
      std::all_of(text.begin(), text.end(), [&](char c) { return byte_id(c) >= 0; })) {
    for (const char c : text) ids.push_back(byte_id(c));
    return;
  }
  if (options_.unk_id) return ids.push_back(*options_.unk_id);
  throw DataError("tokenizer", fmt::format("expected text in the characters of a vocabulary "
                                           "without an unknown token, got '{}'",
                                           text.substr(0, 40)));
}

void UnigramModel::encode(std::string_view piece, Scratch& scratch,
                          std::vector<int32_t>& ids) const {
  auto& buffers = static_cast<Buffers&>(scratch);
  if (piece.size() >= static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    throw DataError("tokenizer", "expected texts of less than 2 GiB, got a longer one");
  }
  if (options_.single_precision) {
    find_best_path<float>(piece, buffers);
  } else {
    find_best_path<double>(piece, buffers);
  }
  auto& path = buffers.path;
  path.clear();
  for (auto end = static_cast<int32_t>(piece.size()); end > 0;
       end = buffers.ends[static_cast<size_t>(end)].begin) {
    path.push_back(end);
  }
  // Neighbouring unknown characters are one unknown text.
  size_t unknown_begin = 0, done = 0;
  const auto flush_unknown = [&](size_t end) {
    if (unknown_begin == end) return;
    const std::string_view text = piece.substr(unknown_begin, end - unknown_begin);
    const auto known = options_.single_precision ? std::nullopt : vocabulary_.find(text);
    if (known) {
      ids.push_back(*known);
    } else {
      append_unknown(text, ids);
    }
  };
  for (auto end = path.rbegin(); end != path.rend(); ++end) {
    const int32_t id = buffers.ends[static_cast<size_t>(*end)].id;
    if (id != options_.unk_id.value_or(-1)) {
      flush_unknown(done);
      ids.push_back(id);
      unknown_begin = static_cast<size_t>(*end);
    }
    done = static_cast<size_t>(*end);
  }
  flush_unknown(done);
}

}  // namespace qianli::text
