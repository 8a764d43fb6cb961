#include "qianli/text/charsmap.h"

#include <fmt/core.h>
#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "qianli/base/error.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// What a unit of darts-clone's array holds.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FFu; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

uint32_t read_u32(std::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(bytes[at + i]));
  };
  return byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, const std::string& where) {
  const auto refuse = [&](const std::string& got) {
    throw DataError("tokenizer", fmt::format("expected a character map at {}, got {}", where, got));
  };
  if (blob.size() < 4) refuse(fmt::format("{} bytes", blob.size()));
  const size_t array_bytes = read_u32(blob, 0);
  if (array_bytes == 0 || array_bytes % 4 != 0 || array_bytes >= blob.size() - 3) {
    refuse(fmt::format("a table of {} bytes within {} bytes", array_bytes, blob.size()));
  }
  units_.resize(array_bytes / 4);
  for (size_t i = 0; i < units_.size(); ++i) units_[i] = read_u32(blob, 4 + 4 * i);
  replacements_ = blob.substr(4 + array_bytes);
  if (valid_utf8_prefix(replacements_) != replacements_.size()) {
    refuse("replacements that are not UTF-8");
  }
}

Charsmap::Rule Charsmap::find(std::string_view text, bool first) const {
  Rule rule;
  uint32_t value = 0;
  uint32_t node = empty() ? 0 : offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label_of(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) break;
    rule.size = i + 1;
    value = value_of(units_[node]);
    if (first) break;
  }
  if (rule.size == 0) return rule;
  if (value < replacements_.size() && !is_continuation(replacements_[value])) {
    const std::string_view rest = std::string_view(replacements_).substr(value);
    rule.replacement = rest.substr(0, std::min(rest.find('\0'), rest.size()));
  }
  return rule;
}

namespace {

// Characters of Unicode 15.1 to 17 that go on with the cluster before them. The reference library
// follows Unicode 17; utf8proc may be as old as 15.
struct CodeRange {
  char32_t first, last;
};
constexpr CodeRange kExtendSince15_0[] = {
    {0x897, 0x897},     {0x1ACF, 0x1ADD},   {0x1AE0, 0x1AEB},   {0x10D69, 0x10D6D},
    {0x10EFA, 0x10EFC}, {0x113B8, 0x113C0}, {0x113C2, 0x113C2}, {0x113C5, 0x113C5},
    {0x113C7, 0x113CA}, {0x113CC, 0x113D0}, {0x113D2, 0x113D2}, {0x113E1, 0x113E2},
    {0x11B60, 0x11B67}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F}, {0x1E5EE, 0x1E5EF},
    {0x1E6E3, 0x1E6E3}, {0x1E6E6, 0x1E6E6}, {0x1E6EE, 0x1E6EF}, {0x1E6F5, 0x1E6F5}};

bool extends_since_15_0(char32_t c) {
  const auto* range = std::lower_bound(std::begin(kExtendSince15_0), std::end(kExtendSince15_0), c,
                                       [](const CodeRange& r, char32_t x) { return r.last < x; });
  return range != std::end(kExtendSince15_0) && range->first <= c;
}

// Where extended grapheme clusters end (UAX 29), by utf8proc.
class Clusters {
 public:
  explicit Clusters(std::string_view text) : text_(text) {}
  // The end of the cluster that begins at `begin`.
  size_t end_of(size_t begin) {
    state_ = 0;
    Decoded left = decode_char(text_.data() + begin);
    size_t at = begin + left.size;
    while (at < text_.size()) {
      const Decoded right = decode_char(text_.data() + at);
      if (breaks(left.code, right.code)) break;
      left = right;
      at += right.size;
    }
    return at;
  }

 private:
  bool breaks(char32_t left, char32_t right) {
    if (left < 0x300 && right < 0x300 && left != 0xAD && right != 0xAD) {
      return !(left == '\r' && right == '\n');
    }
    return utf8proc_grapheme_break_stateful(seen_as(left), seen_as(right), &state_);
  }
  static utf8proc_int32_t seen_as(char32_t c) {
    return static_cast<utf8proc_int32_t>(extends_since_15_0(c) ? 0x300 : c);
  }
  std::string_view text_;
  utf8proc_int32_t state_ = 0;
};

class PrecompiledNormalizer : public Normalizer {
 public:
  explicit PrecompiledNormalizer(Charsmap charsmap) : charsmap_(std::move(charsmap)) {}

  // Only whole clusters of less than six bytes are looked up as such; the shortest rule that a
  // cluster begins with replaces all of it.
  void apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    const std::string_view view = text;
    Clusters clusters(view);
    for (size_t at = 0; at < view.size();) {
      const size_t end = clusters.end_of(at);
      const std::string_view cluster = view.substr(at, end - at);
      at = end;
      const auto rule = cluster.size() < 6 ? charsmap_.shortest(cluster) : Charsmap::Rule{};
      if (rule.size > 0) {
        out += rule.replacement;
      } else {
        append_characters(cluster, out);
      }
      check_growth(text.size(), out.size());
    }
    text = std::move(out);
  }

 private:
  void append_characters(std::string_view cluster, std::string& out) const {
    for (size_t at = 0; at < cluster.size();) {
      const size_t size = decode_char(cluster.data() + at).size;
      const auto rule = charsmap_.shortest(cluster.substr(at, size));
      out += rule.size > 0 ? rule.replacement : cluster.substr(at, size);
      at += size;
    }
  }
  Charsmap charsmap_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_precompiled_normalizer(Charsmap charsmap) {
  return std::make_unique<PrecompiledNormalizer>(std::move(charsmap));
}

}  // namespace qianli::text
