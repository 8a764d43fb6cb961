// PREFIX.json beside a token corpus PREFIX.{bin,idx}: from what and how it was made, so that data
// made with another tokenizer, from other text, or changed afterwards is noticed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/data/documents.h"

namespace qianli::data {

// A source file as it was: the digest is of all its bytes.
struct SourceFile {
  std::string path;
  uint64_t bytes = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  std::string xxh3;

  // Size and times without the digest.
  static SourceFile stat(const fs::path& path);
  bool same_stamp(const SourceFile& other) const {
    return bytes == other.bytes && mtime_ns == other.mtime_ns && ctime_ns == other.ctime_ns;
  }
};

OrderedJson to_json(const SourceFile& source);
SourceFile source_from_json(const Json& json);  // throws Json::exception

struct CorpusManifest {
  std::vector<SourceFile> sources;
  DocumentRules rules;
  bool append_eod = true;
  std::string tokenizer;  // fingerprint
  int64_t vocab_size = 0;
  std::optional<int64_t> eod;
  // What came out of it; empty while the work goes on.
  uint64_t documents = 0;  // empty ones are left out
  uint64_t tokens = 0;
  std::string bin_fingerprint, idx_fingerprint;

  // Digest of everything that decides the tokens: the bytes of the sources in order, the rules, the
  // tokenizer. Equal identities give equal files.
  std::string identity() const;

  std::string to_json() const;
  static CorpusManifest read(const fs::path& path);
  // None where there is no such file.
  static std::optional<CorpusManifest> of_prefix(const fs::path& prefix);
};

// DataError unless the files are those the manifest speaks of and, when a fingerprint is given, the
// tokenizer is the one they were made with.
void check_prepared(const fs::path& prefix, const CorpusManifest& manifest,
                    const std::optional<std::string>& tokenizer);

}  // namespace qianli::data
