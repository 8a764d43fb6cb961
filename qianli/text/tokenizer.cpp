#include "qianli/text/tokenizer.h"

#define XXH_INLINE_ALL
#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "qianli/base/error.h"
#include "qianli/text/gzip.h"
#include "qianli/text/special_names.h"
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
  tokenizer.bos = config.bos_token ? named_token(tokenizer, "bos_token", config.bos_token)
                                   : usual_token(tokenizer, kBosNames);
  tokenizer.eos = config.eos_token ? named_token(tokenizer, "eos_token", config.eos_token)
                                   : usual_token(tokenizer, kEosNames);
  tokenizer.pad = named_token(tokenizer, "pad_token", config.pad_token);
  tokenizer.unk = config.unk_token ? named_token(tokenizer, "unk_token", config.unk_token)
                                   : tokenizer.model->options().unk_id;
}

fs::path tokenizer_file(const fs::path& place) {
  if (!fs::is_directory(place)) return place;
  for (const char* name : {"tokenizer.json", "tokenizer.json.gz"}) {
    if (fs::exists(place / name)) return place / name;
  }
  throw DataError("tokenizer", fmt::format("expected tokenizer.json in {}, got a folder without it",
                                           place.string()));
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerImpl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::load(const fs::path& folder_or_file) {
  const fs::path file = tokenizer_file(folder_or_file);
  std::string json = read_file(file, FileRole::kData, kMaxFileBytes);
  if (is_gzip(json)) json = unpack_gzip(json, kMaxFileBytes, file.string());
  return from_json(json, file.string(), read_tokenizer_config(file.parent_path()));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_json(std::string_view json,
                                                      const std::string& source,
                                                      TokenizerConfig config) {
  auto impl = std::make_unique<TokenizerImpl>();
  impl->source = source;
  impl->config = std::move(config);
  impl->fingerprint = fmt::format("{:016x}", XXH64(json.data(), json.size(), 0));
  read_tokenizer_json(json, *impl);
  find_special_ids(*impl);
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(impl)));
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

std::string Tokenizer::token(int32_t id) const { return std::string(impl_->token(id)); }
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

std::string Tokenizer::kind() const {
  const BpeOptions& options = impl_->model->options();
  if (options.byte_level) return "byte-level BPE";
  return options.byte_fallback ? "BPE with byte fallback" : "BPE";
}

}  // namespace qianli::text
