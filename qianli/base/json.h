// JSON from strangers: nlohmann's parser behind depth and size limits, duplicate keys refused.
// One thing beyond RFC 8259 is read: NaN, Infinity and -Infinity, which Python's json module writes
// for such numbers, are null.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "qianli/base/file.h"

namespace qianli {

using Json = nlohmann::json;                // sorted keys, fast look-up: for reading
using OrderedJson = nlohmann::ordered_json;  // keys as inserted, linear look-up: for small outputs

struct JsonLimits {
  int depth = 64;
  bool refuse_duplicate_keys = true;
};

// `source` names the text in errors ("model/config.json").
Json parse_json(std::string_view text, const std::string& source, FileRole role, JsonLimits limits = {});
// The same with keys in the order of the text.
OrderedJson parse_ordered_json(std::string_view text, const std::string& source, FileRole role,
                               JsonLimits limits = {});
// The tree of a hostile text ("[{},{}…") takes about 35 times its bytes: callers allow what such a
// file may need, and no more.
Json read_json(const fs::path& path, FileRole role, uint64_t max_bytes = uint64_t{1} << 26);

}  // namespace qianli
