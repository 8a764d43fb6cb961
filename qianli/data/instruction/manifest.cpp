#include "qianli/data/instruction/manifest.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/data/digest.h"

namespace qianli::data {
namespace {

constexpr int kFormat = 1;
constexpr size_t kShown = 5;

void add_some(std::vector<std::string>& to, const std::vector<std::string>& from) {
  for (const std::string& text : from) {
    if (to.size() < kShown) to.push_back(text);
  }
}

}  // namespace

void InstructionCounts::add(const InstructionCounts& other) {
  rows += other.rows;
  bad_rows += other.bad_rows;
  too_long += other.too_long;
  cut += other.cut;
  samples += other.samples;
  sequences += other.sequences;
  tokens += other.tokens;
  trained += other.trained;
  add_some(first_bad_rows, other.first_bad_rows);
  add_some(warnings, other.warnings);
}

OrderedJson InstructionCounts::to_json() const {
  return {{"rows", rows},        {"bad_rows", bad_rows},      {"too_long", too_long},
          {"cut", cut},          {"samples", samples},        {"sequences", sequences},
          {"tokens", tokens},    {"trained_tokens", trained}, {"first_bad_rows", first_bad_rows},
          {"warnings", warnings}};
}

InstructionCounts InstructionCounts::from_json(const Json& json) {
  InstructionCounts counts;
  counts.rows = json.at("rows");
  counts.bad_rows = json.at("bad_rows");
  counts.too_long = json.at("too_long");
  counts.cut = json.at("cut");
  counts.samples = json.at("samples");
  counts.sequences = json.at("sequences");
  counts.tokens = json.at("tokens");
  counts.trained = json.at("trained_tokens");
  counts.first_bad_rows = json.at("first_bad_rows").get<std::vector<std::string>>();
  counts.warnings = json.at("warnings").get<std::vector<std::string>>();
  return counts;
}

std::string InstructionManifest::identity() const {
  OrderedJson all = {
      {"format", kFormat}, {"settings", settings}, {"sources", OrderedJson::array()}};
  for (const SourceFile& source : sources) {
    all["sources"].push_back(
        {fs::path(source.path).filename().string(), source.bytes, source.xxh3});
  }
  return xxh3_hex(all.dump(-1, ' ', true, OrderedJson::error_handler_t::replace));
}

std::string InstructionManifest::to_json() const {
  OrderedJson json = {{"format", kFormat},
                      {"identity", identity()},
                      {"fields", fields},
                      {"sequence_length", sequence_length},
                      {"counts", counts.to_json()},
                      {"settings", settings},
                      {"fingerprints", fingerprints},
                      {"sources", OrderedJson::array()}};
  for (const SourceFile& source : sources) json["sources"].push_back(data::to_json(source));
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::optional<InstructionManifest> InstructionManifest::of_prefix(const fs::path& prefix) {
  const fs::path path = instruction_manifest_path(prefix);
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  // Settings keep the order of their keys: the identity depends on it.
  const std::string text = read_file(path, FileRole::kData, uint64_t{64} << 20);
  const Json json = parse_json(text, path.string(), FileRole::kData);
  try {
    if (json.at("format") != kFormat) {
      throw DataError("data",
                      fmt::format("expected format {} in {}, got {}", kFormat, path.string(),
                                  json.at("format").dump()),
                      "prepare the data again");
    }
    InstructionManifest manifest;
    manifest.fields = json.at("fields").get<std::vector<std::string>>();
    manifest.sequence_length = json.at("sequence_length");
    manifest.counts = InstructionCounts::from_json(json.at("counts"));
    manifest.fingerprints = json.at("fingerprints").get<std::map<std::string, std::string>>();
    for (const Json& source : json.at("sources"))
      manifest.sources.push_back(source_from_json(source));
    manifest.settings = parse_ordered_json(text, path.string(), FileRole::kData).at("settings");
    return manifest;
  } catch (const OrderedJson::exception& error) {
    throw DataError("data", fmt::format("{} is damaged: {}", path.string(), error.what()),
                    "prepare the data again");
  }
}

fs::path field_prefix(const fs::path& prefix, const std::string& field) {
  return prefix.string() + "_packed_" + field + "_document";
}

fs::path instruction_manifest_path(const fs::path& prefix) {
  return prefix.string() + "_packed.json";
}

}  // namespace qianli::data
