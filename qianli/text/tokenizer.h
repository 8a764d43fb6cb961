// Text to token ids and back, from every kind of file that model families ship: tokenizer.json,
// SentencePiece's tokenizer.model, tiktoken's rank files, tekken.json, vocab.json with merges.txt,
// vocab.txt. Ids are those of the library that made the file (`tokenizers`, `sentencepiece`,
// `tiktoken`) for every text; a part of a file that is not supported is refused by name when the
// file is loaded, never ignored.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/file.h"

namespace qianli::text {

struct TokenizerImpl;

// What tokenizer_config.json (or special_tokens_map.json) says besides tokenizer.json; fields that
// no file sets are empty.
struct TokenizerConfig {
  std::string tokenizer_class;
  std::optional<std::string> bos_token, eos_token, pad_token, unk_token;
  // For the classes of LLaMA, Gemma and Cohere these override the post-processor of
  // tokenizer.json, as in transformers; for others they count where there is no tokenizer.json.
  std::optional<bool> add_bos_token, add_eos_token;
  std::optional<int64_t> model_max_length;  // absent where the file says "no limit" (1e30)
  // transformers' default is false where the key is missing.
  bool clean_up_tokenization_spaces = false;
};

// Whether decoding removes the spaces before punctuation and contractions (transformers'
// clean_up_tokenization_spaces). kNever keeps decoding exact and is what transformers 5 does with
// BPE tokenizers even where the file asks for it; kAsFile follows tokenizer_config.json.
enum class CleanUp { kNever, kAsFile, kAlways };

struct DecodeOptions {
  bool skip_special_tokens = false;
  CleanUp clean_up_spaces = CleanUp::kNever;
};

// Immutable and safe to use from many threads at once.
class Tokenizer {
 public:
  // A folder with one of these files (the order above decides), or such a file.
  // tokenizer_config.json and special_tokens_map.json beside it are read when present; where there
  // is no tokenizer.json they also say which tokens to look for in texts and what stands around a
  // text. Throws DataError naming file and key.
  static std::shared_ptr<const Tokenizer> load(const fs::path& folder_or_file);
  // Whether `folder` is one in which load() would find a file.
  static bool is_in(const fs::path& folder);
  // From the text of a tokenizer.json; `source` names it in errors.
  static std::shared_ptr<const Tokenizer> from_json(std::string_view json,
                                                    const std::string& source,
                                                    TokenizerConfig config = {});
  // From the content of a file called `name`, without the files beside it; `merges` is the content
  // of merges.txt where the file is a vocab.json.
  static std::shared_ptr<const Tokenizer> from_bytes(std::string_view name, std::string_view bytes,
                                                     const std::string& source,
                                                     std::string_view merges = {});
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Invalid UTF-8 is read as U+FFFD, one per maximal ill-formed part (as Python's and Rust's lossy
  // decoding do). `add_special_tokens`: what the files put around a text, for example a leading
  // <s>. Added tokens that stand in the text ("<|im_end|>") become their ids either way.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;
  // The same, appended to `ids`: for loops that reuse a buffer.
  void encode_to(std::string_view text, bool add_special_tokens, std::vector<int32_t>& ids) const;

  // Ids without a token (holes, padding of the embedding) give no text. The result is valid UTF-8.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
  std::string decode(std::span<const int32_t> ids, const DecodeOptions& options) const;

  // Largest id + 1, added tokens included: the rows an embedding table needs at least.
  int64_t vocab_size() const;
  // Number of ids that have a token.
  int64_t num_tokens() const;
  // The token as it stands in the file ("Ġthe"), empty for an id without one.
  std::string token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  // Marked special in added_tokens: dropped by skip_special_tokens.
  bool is_special(int32_t id) const;
  // Ids of all added tokens, ascending.
  std::vector<int32_t> added_tokens() const;

  // From tokenizer_config.json, then special_tokens_map.json, then by the usual names among the
  // special tokens ("<s>", "<|begin_of_text|>", "</s>", "<|endoftext|>", "<|im_end|>", ...).
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;  // no guess: only what the files name
  std::optional<int32_t> unk_id() const;  // the configuration's, or the model's

  const TokenizerConfig& config() const;
  // xxHash64 of the (unpacked) tokenizer.json, or of the other files and the added tokens, 16 hex
  // digits: tells whether data was made with it.
  const std::string& fingerprint() const;
  // "byte-level BPE", "Unigram with byte fallback", "WordPiece", ...
  std::string kind() const;

 private:
  friend class StreamingDecoder;
  explicit Tokenizer(std::unique_ptr<const TokenizerImpl> impl);
  std::unique_ptr<const TokenizerImpl> impl_;
};

// Decodes a growing sequence: push(id) returns the text that later ids can no longer change, never
// half a UTF-8 character. All pushes plus finish() concatenate to decode(all ids).
class StreamingDecoder {
 public:
  explicit StreamingDecoder(std::shared_ptr<const Tokenizer> tokenizer, DecodeOptions options = {});
  ~StreamingDecoder();
  StreamingDecoder(StreamingDecoder&&) noexcept;
  StreamingDecoder& operator=(StreamingDecoder&&) noexcept;

  std::string push(int32_t id);
  // What was held back; afterwards the decoder is as new.
  std::string finish();

 private:
  struct State;
  std::shared_ptr<const Tokenizer> tokenizer_;
  DecodeOptions options_;
  std::unique_ptr<State> state_;
};

}  // namespace qianli::text
