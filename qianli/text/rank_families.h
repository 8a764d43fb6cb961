// The tokenizers whose rank files (tiktoken) do not say how text is split and which special tokens
// there are: that stands in the families' own code, and here.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

struct RankFamily {
  std::string_view name;
  std::string_view regex;
  bool nfc = false;  // texts are brought into normal form C first
  // Special tokens from id `first` on, in this order; an empty name leaves a hole.
  int32_t first_special = 0;
  std::vector<std::string> special;
  std::vector<std::string> prefix;  // stands in front of texts
  std::string_view bos, eos;        // "" where the family names none
};

// By the tokenizer class of the configuration, by the file's name, or by the number of ranks.
std::optional<RankFamily> find_rank_family(std::string_view class_name, std::string_view file_name,
                                           int32_t num_ranks);
// Their names, for errors.
std::string known_rank_families();

}  // namespace qianli::text
