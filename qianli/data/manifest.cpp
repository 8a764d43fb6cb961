#include "qianli/data/manifest.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/data/digest.h"

namespace qianli::data {
namespace {

constexpr int kFormat = 1;
constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

int64_t nanoseconds(const timespec& time) {
  return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

OrderedJson to_json(const SourceFile& source) {
  return {{"path", source.path},
          {"bytes", source.bytes},
          {"mtime_ns", source.mtime_ns},
          {"ctime_ns", source.ctime_ns},
          {"xxh3", source.xxh3}};
}

SourceFile source_from_json(const Json& json) {
  return {.path = json.at("path"),
          .bytes = json.at("bytes"),
          .mtime_ns = json.at("mtime_ns"),
          .ctime_ns = json.at("ctime_ns"),
          .xxh3 = json.at("xxh3")};
}

SourceFile SourceFile::stat(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    throw DataError("data", fmt::format("cannot read {}: {}", path.string(), std::strerror(errno)));
  }
  return {.path = path.string(),
          .bytes = static_cast<uint64_t>(info.st_size),
          .mtime_ns = nanoseconds(info.st_mtim),
          .ctime_ns = nanoseconds(info.st_ctim)};
}

std::string CorpusManifest::identity() const {
  Json all = {{"format", kFormat},
              {"text_key", rules.text_key},
              {"separator", or_null(rules.separator)},
              {"append_eod", append_eod},
              {"tokenizer", tokenizer},
              {"vocab_size", vocab_size},
              {"eod", or_null(eod)}};
  if (rules.text != DocumentText::kKey) all["text"] = static_cast<int>(rules.text);
  for (const SourceFile& source : sources) {
    // The name decides whether it is JSON or plain text.
    all["sources"].push_back(
        {fs::path(source.path).filename().string(), source.bytes, source.xxh3});
  }
  return xxh3_hex(all.dump(-1, ' ', true, Json::error_handler_t::replace));
}

std::string CorpusManifest::to_json() const {
  OrderedJson json = {{"format", kFormat},
                      {"identity", identity()},
                      {"documents", documents},
                      {"tokens", tokens},
                      {"tokenizer", tokenizer},
                      {"vocab_size", vocab_size},
                      {"eod", or_null(eod)},
                      {"append_eod", append_eod},
                      {"text_key", rules.text_key},
                      {"separator", or_null(rules.separator)},
                      {"text", static_cast<int>(rules.text)},
                      {"bin_fingerprint", bin_fingerprint},
                      {"idx_fingerprint", idx_fingerprint},
                      {"sources", OrderedJson::array()}};
  for (const SourceFile& source : sources) json["sources"].push_back(data::to_json(source));
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

CorpusManifest CorpusManifest::read(const fs::path& path) {
  const Json json = read_json(path, FileRole::kData, kMaxBytes);
  try {
    if (json.at("format") != kFormat) {
      throw DataError("data",
                      fmt::format("expected format {} in {}, got {}", kFormat, path.string(),
                                  json.at("format").dump()),
                      "prepare the data again");
    }
    CorpusManifest manifest;
    for (const Json& source : json.at("sources"))
      manifest.sources.push_back(source_from_json(source));
    manifest.rules.text_key = json.at("text_key");
    if (!json.at("separator").is_null())
      manifest.rules.separator = json.at("separator").get<std::string>();
    if (const int text = json.value("text", 0); text >= 0 && text <= 3)
      manifest.rules.text = static_cast<DocumentText>(text);
    manifest.append_eod = json.at("append_eod");
    manifest.tokenizer = json.at("tokenizer");
    manifest.vocab_size = json.at("vocab_size");
    if (!json.at("eod").is_null()) manifest.eod = json.at("eod").get<int64_t>();
    manifest.documents = json.at("documents");
    manifest.tokens = json.at("tokens");
    manifest.bin_fingerprint = json.at("bin_fingerprint");
    manifest.idx_fingerprint = json.at("idx_fingerprint");
    return manifest;
  } catch (const Json::exception& error) {
    throw DataError("data", fmt::format("{} is damaged: {}", path.string(), error.what()),
                    "prepare the data again");
  }
}

std::optional<CorpusManifest> CorpusManifest::of_prefix(const fs::path& prefix) {
  const fs::path path = prefix.string() + ".json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return std::nullopt;
  return read(path);
}

void check_prepared(const fs::path& prefix, const CorpusManifest& manifest,
                    const std::optional<std::string>& tokenizer) {
  const std::string expected[] = {manifest.bin_fingerprint, manifest.idx_fingerprint};
  const char* suffixes[] = {".bin", ".idx"};
  for (size_t i = 0; i < 2; ++i) {
    if (fingerprint_of_file(prefix.string() + suffixes[i]) == expected[i]) continue;
    throw DataError(
        "data", fmt::format("{}{} has changed since it was prepared", prefix.string(), suffixes[i]),
        "prepare the data again, or delete the .json beside it to use the files as they are");
  }
  if (tokenizer && *tokenizer != manifest.tokenizer) {
    throw DataError(
        "data",
        fmt::format("expected data made with this run's tokenizer ({}), got {} made with {}",
                    *tokenizer, prefix.string(), manifest.tokenizer),
        "give the tokenizer the data was prepared with, or prepare the data again");
  }
}

}  // namespace qianli::data
