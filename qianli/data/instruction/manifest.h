// PREFIX_packed.json beside prepared instruction data: from what and how it was made, and what came
// out of it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/data/manifest.h"

namespace qianli::data {

struct InstructionCounts {
  int64_t rows = 0;
  int64_t bad_rows = 0;                               // could not be used
  int64_t too_long = 0;                               // samples not written
  int64_t cut = 0;                                    // samples written that lost tokens
  int64_t samples = 0;                                // written
  int64_t sequences = 0;                              // the same, or what they were packed into
  int64_t tokens = 0;                                 // of all samples, without padding
  int64_t trained = 0;                                // of these, with a label
  std::vector<std::string> first_bad_rows, warnings;  // a few

  // Of the part that comes behind this one.
  void add(const InstructionCounts& other);
  OrderedJson to_json() const;
  static InstructionCounts from_json(const Json& json);  // throws Json::exception
};

struct InstructionManifest {
  std::vector<SourceFile> sources;
  OrderedJson settings;  // everything else that decides the tokens
  std::vector<std::string> fields;
  int64_t sequence_length = 0;  // of packed data
  InstructionCounts counts;
  std::map<std::string, std::string> fingerprints;  // of the files, by field and suffix

  // Equal identities give equal files.
  std::string identity() const;
  std::string to_json() const;
  // None where there is no such file; DataError where it is damaged.
  static std::optional<InstructionManifest> of_prefix(const fs::path& prefix);
};

// PREFIX_packed_FIELD_document, MindSpeed-LLM's name of a field's .bin/.idx pair.
fs::path field_prefix(const fs::path& prefix, const std::string& field);
// PREFIX_packed.json
fs::path instruction_manifest_path(const fs::path& prefix);

}  // namespace qianli::data
