#include "qianli/text/tokenizer_files.h"

#include <algorithm>
#include <vector>

#include "qianli/text/base64.h"

namespace qianli::text {
namespace {

// "SGVsbG8= 17" in the first line.
bool begins_with_rank(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), bytes.size()));
  const size_t space = line.find(' ');
  if (space == line.npos || space == 0) return false;
  const std::string_view rank = line.substr(space + 1, line.find('\r', space) - space - 1);
  return decode_base64(line.substr(0, space)).has_value() && !rank.empty() &&
         rank.find_first_not_of("0123456789") == rank.npos;
}

std::optional<fs::path> rank_file(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found.empty() ? std::nullopt : std::optional(found.front());
}

}  // namespace

std::optional<fs::path> find_tokenizer_file(const fs::path& place) {
  if (!fs::is_directory(place)) return fs::exists(place) ? std::optional(place) : std::nullopt;
  for (const char* name : {"tokenizer.json", "tokenizer.json.gz", "tokenizer.model", "spiece.model",
                           "sentencepiece.bpe.model", "tiktoken.model"}) {
    if (fs::exists(place / name)) return place / name;
  }
  if (auto ranks = rank_file(place)) return ranks;
  if (fs::exists(place / "tekken.json")) return place / "tekken.json";
  if (fs::exists(place / "vocab.json") && fs::exists(place / "merges.txt")) {
    return place / "vocab.json";
  }
  return fs::exists(place / "vocab.txt") ? std::optional(place / "vocab.txt") : std::nullopt;
}

TokenizerFileKind kind_of_tokenizer_file(std::string_view name, std::string_view bytes) {
  if (name == "tekken.json") return TokenizerFileKind::kTekken;
  if (name == "vocab.json" || name == "merges.txt") return TokenizerFileKind::kVocabAndMerges;
  if (name == "vocab.txt") return TokenizerFileKind::kVocabLines;
  if (name.ends_with(".tiktoken") || begins_with_rank(bytes)) return TokenizerFileKind::kRanks;
  if (name.ends_with(".model")) return TokenizerFileKind::kSentencePiece;
  return TokenizerFileKind::kJson;
}

}  // namespace qianli::text
