#include "qianli/text/tokenizer.h"

#define XXH_INLINE_ALL
#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/text/extra_tokens.h"
#include "qianli/text/gzip.h"
#include "qianli/text/read_files.h"
#include "qianli/text/special_names.h"
#include "qianli/text/tokenizer_files.h"
#include "qianli/text/tokenizer_impl.h"

namespace qianli::text {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{1} << 29;

// What the configuration names; "" names none. An unknown name is an error: data would silently go
// without the token.
std::optional<int32_t> named_token(const TokenizerImpl& tokenizer, const char* key,
                                   const std::optional<std::string>& name) {
  if (!name || name->empty()) return std::nullopt;
  const auto id = tokenizer.id_of(*name);
  if (!id) {
    throw DataError("tokenizer",
                    fmt::format("expected {} of the configuration among the tokens of {}, got '{}'",
                                key, tokenizer.source, *name));
  }
  return id;
}

template <size_t N>
std::optional<int32_t> usual_token(const TokenizerImpl& tokenizer,
                                   const std::string_view (&names)[N]) {
  for (const auto name : names) {
    const auto id = tokenizer.id_of(name);
    if (id && tokenizer.is_special(*id)) return id;
  }
  return std::nullopt;
}

void find_special_ids(TokenizerImpl& tokenizer) {
  const TokenizerConfig& config = tokenizer.config;
  // Of the configuration, of the model file, or by their usual names.
  if (config.bos_token) {
    tokenizer.bos = named_token(tokenizer, "bos_token", config.bos_token);
  } else if (!tokenizer.bos) {
    tokenizer.bos = usual_token(tokenizer, kBosNames);
  }
  if (config.eos_token) {
    tokenizer.eos = named_token(tokenizer, "eos_token", config.eos_token);
  } else if (!tokenizer.eos) {
    tokenizer.eos = usual_token(tokenizer, kEosNames);
  }
  if (config.pad_token) tokenizer.pad = named_token(tokenizer, "pad_token", config.pad_token);
  tokenizer.unk = config.unk_token ? named_token(tokenizer, "unk_token", config.unk_token)
                                   : tokenizer.model->unk_id();
}

// What a tokenizer is read from; digests of all parts tell it from others.
struct Source {
  std::string name, bytes, merges;
};

Source read_source(const fs::path& file) {
  Source source{file.filename().string(), read_file(file, FileRole::kData, kMaxFileBytes), {}};
  if (is_gzip(source.bytes)) {
    source.bytes = unpack_gzip(source.bytes, kMaxFileBytes, file.string());
  }
  return source;
}

bool is_json(const Source& source) {
  return kind_of_tokenizer_file(source.name, source.bytes) == TokenizerFileKind::kJson;
}

void read_into(const Source& source, const FolderConfig& config, TokenizerImpl& tokenizer) {
  switch (kind_of_tokenizer_file(source.name, source.bytes)) {
    case TokenizerFileKind::kJson:
      return read_tokenizer_json(source.bytes, config.extra, tokenizer);
    case TokenizerFileKind::kSentencePiece:
      return read_sentencepiece(source.bytes, config, tokenizer);
    case TokenizerFileKind::kRanks:
      return read_ranks(source.bytes, source.name, config, tokenizer);
    case TokenizerFileKind::kTekken:
      return read_tekken(source.bytes, config, tokenizer);
    case TokenizerFileKind::kVocabAndMerges:
      return read_vocab_and_merges(source.bytes, source.merges, config, tokenizer);
    case TokenizerFileKind::kVocabLines:
      return read_vocab_lines(source.bytes, config, tokenizer);
  }
}

uint64_t with_token(const AddedToken& token, uint64_t hash) {
  return XXH64(token.content.data(), token.content.size(), hash + static_cast<uint64_t>(token.id));
}

// Of what was read, and of added tokens that other files name: they change ids, too.
std::string fingerprint_of(const Source& source, const FolderConfig& config,
                           const TokenizerImpl& tokenizer) {
  uint64_t hash = XXH64(source.bytes.data(), source.bytes.size(), 0);
  if (!source.merges.empty()) hash = XXH64(source.merges.data(), source.merges.size(), hash);
  if (is_json(source)) {
    for (size_t i = tokenizer.num_own_added; i < tokenizer.added.size(); ++i) {
      hash = with_token(tokenizer.added[i], hash);
    }
  } else {
    for (const AddedToken& token : config.added) hash = with_token(token, hash);
    for (const auto& name : config.additional_special_tokens) {
      hash = XXH64(name.data(), name.size(), hash);
    }
  }
  return fmt::format("{:016x}", hash);
}

// For these classes transformers puts its own template in the place of the file's.
bool overrides_template(const FolderConfig& config) {
  const std::string name = config.class_name();
  const bool has_flags = config.main.add_bos_token || config.main.add_eos_token;
  return has_flags && (name == "LlamaTokenizer" || name == "CodeLlamaTokenizer" ||
                       name == "GemmaTokenizer" || name == "CohereTokenizer");
}

std::unique_ptr<const TokenizerImpl> make(const Source& source, const std::string& name,
                                          const FolderConfig& config) {
  auto impl = std::make_unique<TokenizerImpl>();
  impl->source = name;
  impl->config = config.main;
  read_into(source, config, *impl);
  impl->fingerprint = fingerprint_of(source, config, *impl);
  find_special_ids(*impl);
  if (!is_json(source)) {
    put_bos_and_eos(config, *impl);
  } else if (overrides_template(config)) {
    impl->prefix.clear();
    impl->suffix.clear();
    impl->puts_bos = true;
    put_bos_and_eos(config, *impl);
  }
  return impl;
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerImpl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& folder_or_file) {
  const auto file = find_tokenizer_file(folder_or_file);
  if (!file) {
    throw DataError("tokenizer",
                    fmt::format("expected a tokenizer at {}, got {}", folder_or_file.string(),
                                fs::exists(folder_or_file) ? "a folder without one" : "nothing"),
                    "tokenizer.json, tokenizer.model, *.tiktoken, tekken.json, vocab.json with "
                    "merges.txt and vocab.txt are read");
  }
  const fs::path folder = file->parent_path();
  Source source = read_source(*file);
  fs::path main = *file;
  if (kind_of_tokenizer_file(source.name, source.bytes) == TokenizerFileKind::kVocabAndMerges) {
    main = folder / "vocab.json";
    source = read_source(main);
    source.merges = read_source(folder / "merges.txt").bytes;
  }
  const FolderConfig config = is_json(source) ? FolderConfig{.main = read_tokenizer_config(folder),
                                                             .extra = read_extra_tokens(folder)}
                                              : read_folder_config(folder);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(make(source, main.string(), config)));
}

bool Tokenizer::is_in(const fs::path& folder) {
  return fs::is_directory(folder) && find_tokenizer_file(folder).has_value();
}

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view json,
                                                      const std::string& source,
                                                      TokenizerConfig config) {
  FolderConfig folder;
  folder.main = std::move(config);
  return std::shared_ptr<const Tokenizer>(
      new Tokenizer(make({"tokenizer.json", std::string(json), {}}, source, folder)));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_bytes(std::string_view name,
                                                       std::string_view bytes,
                                                       const std::string& source,
                                                       std::string_view merges) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(
      make({std::string(name), std::string(bytes), std::string(merges)}, source, {})));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  impl_->encode(text, add_special_tokens, ids);
  return ids;
}

void Tokenizer::encode_to(std::string_view text, bool add_special_tokens,
                          std::vector<int32_t>& ids) const {
  impl_->encode(text, add_special_tokens, ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  return decode(ids, DecodeOptions{.skip_special_tokens = skip_special_tokens});
}

int64_t Tokenizer::vocab_size() const {
  int64_t end = impl_->vocabulary.end_id();
  for (const AddedToken& token : impl_->added) end = std::max<int64_t>(end, token.id + 1);
  return end;
}

int64_t Tokenizer::num_tokens() const {
  int64_t count = impl_->vocabulary.size();
  for (const AddedToken& token : impl_->added) count += impl_->vocabulary.has(token.id) ? 0 : 1;
  return count;
}

std::string Tokenizer::token(int32_t id) const { return std::string(impl_->content(id)); }
std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  return impl_->id_of(token);
}
bool Tokenizer::is_special(int32_t id) const { return impl_->is_special(id); }

std::vector<int32_t> Tokenizer::added_tokens() const {
  std::vector<int32_t> ids;
  for (const AddedToken& token : impl_->added) ids.push_back(token.id);
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<int32_t> Tokenizer::pad_id() const { return impl_->pad; }
std::optional<int32_t> Tokenizer::unk_id() const { return impl_->unk; }
const TokenizerConfig& Tokenizer::config() const { return impl_->config; }
const std::string& Tokenizer::fingerprint() const { return impl_->fingerprint; }

std::string Tokenizer::kind() const { return impl_->model->kind(); }

}  // namespace qianli::text
