// Normalizers, pre-tokenizers and decoders of tokenizer.json.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/text/base64.h"
#include "qianli/text/charsmap.h"
#include "qianli/text/read_json.h"
#include "qianli/text/unicode.h"

namespace qianli::text {

std::unique_ptr<const Pattern> read_pattern(const JsonView& json) {
  if (const auto literal = json.find("String")) {
    if (literal->string().empty()) literal->refuse("a pattern", "an empty string");
    return make_literal_pattern(std::string(literal->string()));
  }
  const auto regex = json.at("Regex");
  return make_regex_pattern(std::string(regex.string()), RegexSyntax::kOniguruma, regex.where());
}

std::vector<JsonView> sequence_items(const JsonView& json, std::string_view key, int depth) {
  if (depth >= kMaxSequenceDepth) json.unsupported("sequences nested this deep");
  return json.at(key).items();
}

namespace {

std::unique_ptr<const Normalizer> read_bert_normalizer(const JsonView& json) {
  BertNormalizerOptions options;
  options.clean_text = json.boolean_or("clean_text", true);
  options.handle_chinese_chars = json.boolean_or("handle_chinese_chars", true);
  options.lowercase = json.boolean_or("lowercase", true);
  // Where the file does not say: as BERT's own code, with the case.
  options.strip_accents = json.boolean_or("strip_accents", options.lowercase);
  return make_bert_normalizer(options);
}

std::unique_ptr<const Normalizer> read_precompiled(const JsonView& json) {
  const auto map = json.at("precompiled_charsmap");
  const auto bytes = decode_base64(map.string());
  if (!bytes) map.refuse("base64", "something else");
  return make_precompiled_normalizer(Charsmap(*bytes, map.where()));
}

std::unique_ptr<const Normalizer> normalizer_at(const JsonView& json, int depth) {
  const auto type = json.type();
  if (type == "Sequence") {
    std::vector<std::unique_ptr<const Normalizer>> steps;
    for (const auto& item : sequence_items(json, "normalizers", depth)) {
      steps.push_back(normalizer_at(item, depth + 1));
    }
    return make_normalizer_sequence(std::move(steps));
  }
  if (type == "NFC") return make_unicode_normalizer(UnicodeForm::kNfc);
  if (type == "NFD") return make_unicode_normalizer(UnicodeForm::kNfd);
  if (type == "NFKC") return make_unicode_normalizer(UnicodeForm::kNfkc);
  if (type == "NFKD") return make_unicode_normalizer(UnicodeForm::kNfkd);
  if (type == "Lowercase") return make_lowercase_normalizer();
  if (type == "StripAccents") return make_strip_accents_normalizer();
  if (type == "Nmt") return make_nmt_normalizer();
  if (type == "ByteLevel") return make_byte_level_normalizer();
  if (type == "BertNormalizer") return read_bert_normalizer(json);
  if (type == "Precompiled") return read_precompiled(json);
  if (type == "Prepend") return make_prepend_normalizer(std::string(json.at("prepend").string()));
  if (type == "Strip") {
    return make_strip_normalizer(json.boolean_or("strip_left", true),
                                 json.boolean_or("strip_right", true));
  }
  if (type == "Replace") {
    return make_replace_normalizer(read_pattern(json.at("pattern")),
                                   std::string(json.at("content").string()));
  }
  json.unsupported(fmt::format("normalizer '{}'", type));
}

SplitBehavior read_behavior(const JsonView& json) {
  const auto name = json.string();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  json.refuse("a split behavior", fmt::format("'{}'", name));
}

// Of Metaspace, in files old and new: add_prefix_space came before prepend_scheme.
PreTokenizer::Prepend read_prepend(const JsonView& json) {
  if (const auto scheme = json.find("prepend_scheme")) {
    const auto name = scheme->string();
    if (name == "always") return PreTokenizer::Prepend::kAlways;
    if (name == "first") return PreTokenizer::Prepend::kFirst;
    if (name == "never") return PreTokenizer::Prepend::kNever;
    scheme->refuse("'always', 'first' or 'never'", fmt::format("'{}'", name));
  }
  return json.boolean_or("add_prefix_space", true) ? PreTokenizer::Prepend::kAlways
                                                   : PreTokenizer::Prepend::kNever;
}

std::string read_one_character(const JsonView& json) {
  const std::string text(json.string());
  if (text.empty() || decode_char(text.data()).size != text.size()) {
    json.refuse("one character", fmt::format("'{}'", text));
  }
  return text;
}

void add_byte_level(const JsonView& json, PreTokenizer& out) {
  if (json.boolean_or("add_prefix_space", true)) out.add_prefix_space();
  if (json.boolean_or("use_regex", true)) {
    out.add_split(make_known_pattern(kGpt2Regex), SplitBehavior::kIsolated, false);
  }
  out.add_byte_level();
}

void add_pre_tokenizer(const JsonView& json, PreTokenizer& out, int depth) {
  const auto type = json.type();
  if (type == "Sequence") {
    for (const auto& item : sequence_items(json, "pretokenizers", depth)) {
      add_pre_tokenizer(item, out, depth + 1);
    }
    return;
  }
  if (type == "ByteLevel") {
    add_byte_level(json, out);
  } else if (type == "Split") {
    out.add_split(read_pattern(json.at("pattern")), read_behavior(json.at("behavior")),
                  json.boolean_or("invert", false));
  } else if (type == "Metaspace") {
    const std::string replacement = read_one_character(json.at("replacement"));
    out.add_metaspace(replacement, read_prepend(json));
    if (json.boolean_or("split", true)) {
      out.add_split(make_literal_pattern(replacement), SplitBehavior::kMergedWithNext, false);
    }
  } else if (type == "Digits") {
    const bool single = json.boolean_or("individual_digits", false);
    out.add_split(make_class_pattern(kNumber, !single), SplitBehavior::kIsolated, false);
  } else if (type == "Whitespace") {
    out.add_split(make_words_pattern(), SplitBehavior::kRemoved, true);
  } else if (type == "Punctuation") {
    const auto behavior = json.find("behavior");
    out.add_split(make_punctuation_pattern(),
                  behavior ? read_behavior(*behavior) : SplitBehavior::kIsolated, false);
  } else if (type == "BertPreTokenizer") {
    out.add_split(make_class_pattern(kSpace, false), SplitBehavior::kRemoved, false);
    out.add_split(make_punctuation_pattern(), SplitBehavior::kIsolated, false);
  } else if (type == "WhitespaceSplit") {
    out.add_split(make_class_pattern(kSpace, false), SplitBehavior::kRemoved, false);
  } else if (type == "CharDelimiterSplit") {
    out.add_split(make_literal_pattern(read_one_character(json.at("delimiter"))),
                  SplitBehavior::kRemoved, false);
  } else {
    json.unsupported(fmt::format("pre-tokenizer '{}'", type));
  }
}

bool fuses(const DecodeStep& step) {
  return step.kind == DecodeStep::Kind::kFuse || step.kind == DecodeStep::Kind::kByteLevel;
}

DecodeStep read_decode_step(const JsonView& json) {
  using Kind = DecodeStep::Kind;
  const auto type = json.type();
  if (type == "ByteLevel") return {Kind::kByteLevel, {}, 0, 0, nullptr};
  if (type == "ByteFallback") return {Kind::kByteFallback, {}, 0, 0, nullptr};
  if (type == "Fuse") return {Kind::kFuse, {}, 0, 0, nullptr};
  if (type == "Replace") {
    return {Kind::kReplace, std::string(json.at("content").string()), 0, 0,
            read_pattern(json.at("pattern"))};
  }
  if (type == "Strip") {
    return {Kind::kStrip, read_one_character(json.at("content")),
            static_cast<size_t>(json.at("start").integer(0, 1024)),
            static_cast<size_t>(json.at("stop").integer(0, 1024)), nullptr};
  }
  if (type == "Metaspace") {
    const bool drops = read_prepend(json) != PreTokenizer::Prepend::kNever;
    return {Kind::kMetaspace, read_one_character(json.at("replacement")), drops ? 1u : 0u, 0,
            nullptr};
  }
  if (type == "WordPiece") {
    return {Kind::kWordPiece, std::string(json.string_or("prefix", "##")),
            json.boolean_or("cleanup", true) ? 1u : 0u, 0, nullptr};
  }
  if (type == "BPEDecoder") {
    const std::string suffix(json.string_or("suffix", "</w>"));
    if (suffix.empty()) json.refuse("a suffix", "an empty one");
    return {Kind::kEndOfWord, suffix, 0, 0, nullptr};
  }
  json.unsupported(fmt::format("decoder '{}'", type));
}

void add_decoder(const JsonView& json, std::vector<DecodeStep>& out, int depth) {
  if (json.type() == "Sequence") {
    for (const auto& item : sequence_items(json, "decoders", depth)) {
      add_decoder(item, out, depth + 1);
    }
    return;
  }
  using Kind = DecodeStep::Kind;
  DecodeStep step = read_decode_step(json);
  const bool fused = std::any_of(out.begin(), out.end(), fuses);
  if (fused && step.kind == Kind::kReplace && json.at("pattern").find("String")) {
    step.kind = Kind::kReplaceText;
    step.from = json.at("pattern").at("String").string();
  }
  const bool fits =
      step.kind == Kind::kFuse || step.kind == Kind::kStrip || step.kind == Kind::kReplaceText;
  if (fused && !fits)
    json.unsupported(fmt::format("decoder '{}' behind Fuse or ByteLevel", json.type()));
  out.push_back(std::move(step));
}

}  // namespace

std::unique_ptr<const Normalizer> read_normalizer(const JsonView& json) {
  return normalizer_at(json, 0);
}

void read_pre_tokenizer(const JsonView& json, PreTokenizer& pre_tokenizer) {
  add_pre_tokenizer(json, pre_tokenizer, 0);
}

std::vector<DecodeStep> read_decoder(const JsonView& json) {
  std::vector<DecodeStep> steps;
  add_decoder(json, steps, 0);
  return steps;
}

}  // namespace qianli::text
