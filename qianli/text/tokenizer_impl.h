// The parts of a loaded tokenizer. Internal to the room.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "qianli/text/added_tokens.h"
#include "qianli/text/decoder.h"
#include "qianli/text/model.h"
#include "qianli/text/normalizer.h"
#include "qianli/text/piece_cache.h"
#include "qianli/text/piece_cutter.h"
#include "qianli/text/pre_tokenizer.h"
#include "qianli/text/tokenizer.h"
#include "qianli/text/vocabulary.h"

namespace qianli::text {

// What one encoding thread needs; kept between calls so that the cache stays warm.
struct Workspace {
  PieceCache cache;
  std::unique_ptr<Model::Scratch> model;
  PreTokenizer::Scratch pre_tokenizer;
  std::string repaired;  // input with ill-formed UTF-8 replaced
  std::string normalized;
  std::vector<Segment> segments, inner_segments;
};

class WorkspacePool {
 public:
  std::unique_ptr<Workspace> take(const Model& model);
  void give(std::unique_ptr<Workspace> workspace);

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

struct TokenizerImpl {
  std::string source;
  std::string fingerprint;
  TokenizerConfig config;

  Vocabulary vocabulary;  // of the model
  std::vector<AddedToken> added;
  size_t num_own_added = 0;  // of them, those of the tokenizer.json itself
  std::unordered_map<std::string, size_t> added_by_content;
  std::unordered_map<int32_t, size_t> added_by_id;

  AddedTokenFinder raw_finder, normalized_finder;
  std::unique_ptr<const Normalizer> normalizer;  // may be null
  // Of text behind an added token, where that is another one.
  std::unique_ptr<const Normalizer> later_normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<const Model> model;
  std::unique_ptr<const PieceCutter> cutter;  // may be null
  std::vector<int32_t> prefix, suffix;        // of the post-processor
  // Whether texts stand between bos and eos where no file says so; not for tokenizer.json.
  bool puts_bos = false, puts_eos = false;
  std::vector<DecodeStep> decoder;
  std::optional<int32_t> bos, eos, pad, unk;
  mutable WorkspacePool pool;

  std::string_view token(int32_t id) const;    // as decoding writes it
  std::string_view content(int32_t id) const;  // as it stands in the file
  std::optional<int32_t> id_of(std::string_view token) const;
  bool is_special(int32_t id) const;
  bool is_skipped(int32_t id) const;  // by decode(skip_special_tokens)
  void encode(std::string_view text, bool add_special_tokens, std::vector<int32_t>& ids) const;

 private:
  void encode_segment(std::string_view text, bool at_start, Workspace& work,
                      std::vector<int32_t>& ids) const;
  void encode_normalized(std::string_view text, bool at_start, Workspace& work,
                         std::vector<int32_t>& ids) const;
  void encode_piece(std::string_view piece, Workspace& work, std::vector<int32_t>& ids) const;
};

// Prepares added tokens for being found and written, once all are known.
void finish_added_tokens(TokenizerImpl& tokenizer);

// Fills everything but config, fingerprint and the special ids from the text of a tokenizer.json;
// `extra` are tokens that other files name (extra_tokens.h).
void read_tokenizer_json(std::string_view json, const std::vector<AddedToken>& extra,
                         TokenizerImpl& tokenizer);

// Of tokenizer_config.json, special_tokens_map.json and added_tokens.json.
constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 24;
// tokenizer_config.json and special_tokens_map.json of a folder, where present.
TokenizerConfig read_tokenizer_config(const fs::path& folder);

}  // namespace qianli::text
