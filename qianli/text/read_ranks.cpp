// Tokenizers from lists of byte strings with ranks: tiktoken's files and Mistral's tekken.json.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "qianli/base/error.h"
#include "qianli/text/base64.h"
#include "qianli/text/bpe_model.h"
#include "qianli/text/json_view.h"
#include "qianli/text/merges.h"
#include "qianli/text/rank_families.h"
#include "qianli/text/read_files.h"
#include "qianli/text/read_json.h"

namespace qianli::text {
namespace {

[[noreturn]] void refuse(const std::string& where, const std::string& expected,
                         const std::string& got) {
  throw DataError("tokenizer", fmt::format("expected {} in {}, got {}", expected, where, got));
}

struct RankedBytes {
  std::string bytes;
  int32_t rank;
};

RankedBytes parse_line(std::string_view line, size_t number, const std::string& source) {
  const auto bad = [&](const char* expected) {
    refuse(source, expected, fmt::format("'{}' in line {}", line.substr(0, 60), number));
  };
  const size_t space = line.find(' ');
  if (space == line.npos) bad("lines of base64, a space and a rank");
  RankedBytes token{decode_base64(line.substr(0, space)).value_or(""), -1};
  if (token.bytes.empty()) bad("base64");
  const auto digits = line.substr(space + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), token.rank);
  if (error != std::errc() || end != digits.data() + digits.size() || token.rank < 0 ||
      token.rank > kMaxId) {
    bad("a rank");
  }
  return token;
}

std::vector<RankedBytes> parse_ranks(std::string_view text, const std::string& source) {
  std::vector<RankedBytes> tokens;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) tokens.push_back(parse_line(line, number, source));
  }
  return tokens;
}

// Fills vocabulary and model; ids are ranks plus `shift`.
void use_ranks(const std::vector<RankedBytes>& tokens, int32_t shift, TokenizerImpl& tokenizer) {
  const std::string& source = tokenizer.source;
  int32_t largest = -1;
  size_t bytes = 0;
  for (const RankedBytes& token : tokens) {
    largest = std::max(largest, token.rank);
    bytes += token.bytes.size();
  }
  if (static_cast<size_t>(largest) > 8 * tokens.size() + 65536) {
    refuse(source, "ranks without large gaps", fmt::format("rank {}", largest));
  }
  Vocabulary raw;  // the tokens as bytes; the tokenizer's own spells them in the byte alphabet
  raw.reserve(tokens.size(), bytes, shift + largest);
  tokenizer.vocabulary.reserve(tokens.size(), 2 * bytes, shift + largest);
  for (const RankedBytes& token : tokens) {
    const int32_t id = shift + token.rank;
    if (raw.add(token.bytes, id) != Vocabulary::Added::kYes) {
      refuse(source, "every token and rank once", fmt::format("rank {} twice", token.rank));
    }
    tokenizer.vocabulary.add(to_byte_level(token.bytes), id);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!raw.find(std::string(1, static_cast<char>(byte)))) {
      refuse(source, "a token for every byte", fmt::format("none for 0x{:02x}", byte));
    }
  }
  ImpliedMerges rules;
  rules.takes_part = [](int32_t) { return true; };
  rules.rank = [](int32_t id) { return static_cast<uint32_t>(id); };
  rules.at_characters = false;
  BpeOptions options;
  options.byte_level = options.ignore_merges = true;
  tokenizer.model = std::make_unique<BpeModel>(
      tokenizer.vocabulary, implied_merges(raw, rules, source), std::move(options));
}

void split_by(std::string_view regex, bool nfc, TokenizerImpl& tokenizer) {
  if (nfc) tokenizer.normalizer = make_unicode_normalizer(UnicodeForm::kNfc);
  tokenizer.pre_tokenizer.add_split(make_regex_pattern(std::string(regex), RegexSyntax::kFancyRegex,
                                                       "the pattern of " + tokenizer.source),
                                    SplitBehavior::kIsolated, false);
  tokenizer.pre_tokenizer.add_byte_level();
  tokenizer.decoder = {{.kind = DecodeStep::Kind::kByteLevel}};
}

std::optional<int32_t> id_of(const TokenizerImpl& tokenizer, std::string_view name) {
  return name.empty() ? std::nullopt : tokenizer.id_of(name);
}

}  // namespace

void read_ranks(std::string_view text, std::string_view name, const FolderConfig& config,
                TokenizerImpl& tokenizer) {
  const auto tokens = parse_ranks(text, tokenizer.source);
  const auto family =
      find_rank_family(config.class_name(), name, static_cast<int32_t>(tokens.size()));
  if (!family) {
    throw DataError("tokenizer",
                    fmt::format("expected a rank file of a known family ({}) at {}, got one of {} "
                                "tokens that nothing names",
                                known_rank_families(), tokenizer.source, tokens.size()),
                    "name tokenizer_class in tokenizer_config.json, or convert it to a "
                    "tokenizer.json.");
  }
  split_by(family->regex, family->nfc, tokenizer);
  use_ranks(tokens, 0, tokenizer);
  int32_t id = family->first_special;
  for (const std::string& special : family->special) {
    if (!special.empty())
      put_added_token({.id = id, .content = special, .special = true}, tokenizer);
    ++id;
  }
  add_configured_tokens(config, tokenizer);
  tokenizer.bos = id_of(tokenizer, family->bos);
  tokenizer.eos = id_of(tokenizer, family->eos);
  const bool puts_prefix = config.main.add_bos_token.value_or(true);
  for (const std::string& token : family->prefix) {
    const auto prefix = tokenizer.id_of(token);
    // One that is bos goes in with bos.
    if (prefix == tokenizer.bos) {
      tokenizer.puts_bos = true;
    } else if (prefix && puts_prefix) {
      tokenizer.prefix.push_back(*prefix);
    }
  }
}

// {"config": {"pattern", "default_vocab_size", "default_num_special_tokens"},
//  "vocab": [{"rank", "token_bytes"}], "special_tokens": [{"rank", "token_str"}]}: special tokens
// have the first ids, the others follow.
void read_tekken(std::string_view json, const FolderConfig& config, TokenizerImpl& tokenizer) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) refuse(tokenizer.source, "JSON", simdjson::error_message(error));
  const JsonView view(root, tokenizer.source);
  const JsonView settings = view.at("config");
  const int64_t num_special = settings.at("default_num_special_tokens").integer(0, kMaxId);
  const int64_t size = settings.at("default_vocab_size").integer(num_special, kMaxId);

  std::vector<RankedBytes> tokens;
  for (const auto& item : view.at("vocab").items()) {
    if (static_cast<int64_t>(tokens.size()) == size - num_special) break;
    auto bytes = decode_base64(item.at("token_bytes").string());
    if (!bytes || bytes->empty()) item.at("token_bytes").refuse("base64", "something else");
    tokens.push_back({*std::move(bytes), static_cast<int32_t>(item.at("rank").integer(0, kMaxId))});
  }
  split_by(settings.at("pattern").string(), false, tokenizer);
  use_ranks(tokens, static_cast<int32_t>(num_special), tokenizer);

  std::vector<std::string> names;
  if (const auto special = view.find("special_tokens")) {
    for (const auto& item : special->items()) {
      const auto rank = static_cast<size_t>(item.at("rank").integer(0, num_special - 1));
      if (names.size() <= rank) names.resize(rank + 1);
      names[rank] = item.at("token_str").string();
    }
  } else {
    names = {"<unk>", "<s>", "</s>", "[INST]", "[/INST]"};
  }
  for (int64_t id = 0; id < num_special; ++id) {
    const auto i = static_cast<size_t>(id);
    const bool named = i < names.size() && !names[i].empty();
    put_added_token({.id = static_cast<int32_t>(id),
                     .content = named ? names[i] : fmt::format("<SPECIAL_{}>", id),
                     .special = true,
                     // A text never makes special tokens by itself, but where the folder's
                     // configuration names them.
                     .matched = false},
                    tokenizer);
  }
  add_configured_tokens(config, tokenizer);
  tokenizer.puts_bos = true;
}

}  // namespace qianli::text
