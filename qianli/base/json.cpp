#include "qianli/base/json.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <vector>

namespace qianli {
namespace {

// Refuses a key that stands twice in one object, while nlohmann builds the tree.
template <class AnyJson>
class UniqueKeys {
 public:
  UniqueKeys(const std::string& source, FileRole role) : source_(source), role_(role) {}

  bool operator()(int, typename AnyJson::parse_event_t event, AnyJson& parsed) {
    using Event = typename AnyJson::parse_event_t;
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key) {
      const auto& key = parsed.template get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) {
        throw_file_error(role_, fmt::format("duplicate key '{}' in {}", key, source_));
      }
    }
    return true;
  }

 private:
  const std::string& source_;
  FileRole role_;
  std::vector<std::set<std::string>> keys_;
};

// nlohmann's parser is iterative, but destroying a deep tree is not: refuse depth before building
// it.
void check_depth(std::string_view text, const std::string& source, FileRole role, int limit) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      if (++depth > limit) {
        throw_file_error(role,
                         fmt::format("expected JSON at most {} levels deep in {}", limit, source));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

// "unexpected end of input; expected '}'" out of "[json.exception…] parse error at line 1, column
// 9: syntax error while parsing object - unexpected end of input; expected '}'". What was read last
// is left out: it may be long.
std::string_view reason_of(const Json::parse_error& error) {
  std::string_view reason = error.what();
  if (const size_t dash = reason.find(" - "); dash != reason.npos) reason.remove_prefix(dash + 3);
  return reason.substr(0, reason.find("; last read"));
}

[[noreturn]] void refuse_syntax(std::string_view text, const std::string& source, FileRole role,
                                const Json::parse_error& error) {
  const std::string_view before = text.substr(0, error.byte > 0 ? error.byte - 1 : 0);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t line_begin = before.rfind('\n') + 1;  // npos + 1 is 0
  throw_file_error(role, fmt::format("{} is not valid JSON: line {}, column {}: {}", source, line,
                                     before.size() - line_begin + 1, reason_of(error)));
}

template <class AnyJson>
AnyJson parse_any(std::string_view text, const std::string& source, FileRole role,
                  JsonLimits limits) {
  // The parser would take a zero byte for the end of the text and not see what follows.
  if (text.find('\0') != text.npos) {
    throw_file_error(role, fmt::format("{} is not valid JSON: it contains a zero byte", source));
  }
  check_depth(text, source, role, limits.depth);
  try {
    if (!limits.refuse_duplicate_keys) return AnyJson::parse(text);
    UniqueKeys<AnyJson> unique(source, role);
    return AnyJson::parse(text, std::ref(unique));
  } catch (const Json::parse_error& error) {
    refuse_syntax(text, source, role, error);
  } catch (const Json::out_of_range&) {
    throw_file_error(
        role, fmt::format("expected numbers of at most 1.8e308 in {}, got a larger one", source));
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& source, FileRole role,
                JsonLimits limits) {
  return parse_any<Json>(text, source, role, limits);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& source, FileRole role,
                               JsonLimits limits) {
  return parse_any<OrderedJson>(text, source, role, limits);
}

Json read_json(const fs::path& path, FileRole role, uint64_t max_bytes) {
  return parse_json(read_file(path, role, max_bytes), path.string(), role);
}

}  // namespace qianli
