#include "qianli/base/json.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>
#include <vector>

namespace qianli {
namespace {

// Refuses a key that stands twice in one object, on a way through the text of its own: with a
// callback, nlohmann's parser goes through all earlier items of a list at the end of every object.
// What is no JSON at all is left to the parser.
class UniqueKeys : public Json::json_sax_t {
 public:
  UniqueKeys(const std::string& source, FileRole role) : source_(source), role_(role) {}

  bool start_object(size_t) override {
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second) {
      throw_file_error(role_, fmt::format("duplicate key '{}' in {}", key, source_));
    }
    return true;
  }
  bool parse_error(size_t, const std::string&, const Json::exception&) override { return false; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(Json::binary_t&) override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }

 private:
  const std::string& source_;
  FileRole role_;
  std::vector<std::set<std::string>> keys_;
};

// Where Python's json module wrote what JSON does not know. The parser gets "null" for it; blanks
// keep what follows at its place where the name is long enough.
struct PythonNumber {
  std::string_view name, replacement;
};
constexpr PythonNumber kPythonNumbers[] = {
    {"-Infinity", "null     "}, {"Infinity", "null    "}, {"NaN", "null"}};

const PythonNumber* python_number_at(std::string_view text, size_t at) {
  for (const PythonNumber& number : kPythonNumbers) {
    if (text.substr(at, number.name.size()) == number.name) return &number;
  }
  return nullptr;
}

// nlohmann's parser is iterative, but destroying a deep tree is not: refuse depth before building
// it. Returns the places outside strings where a PythonNumber stands.
std::vector<size_t> scan(std::string_view text, const std::string& source, FileRole role,
                         int limit) {
  std::vector<size_t> numbers;
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
    } else if (c == 'N' || c == 'I' || c == '-') {
      if (const PythonNumber* number = python_number_at(text, i)) {
        numbers.push_back(i);
        i += number->name.size() - 1;
      }
    }
  }
  return numbers;
}

std::string with_nulls(std::string_view text, const std::vector<size_t>& places) {
  std::string out;
  out.reserve(text.size() + places.size());
  size_t done = 0;
  for (const size_t place : places) {
    const PythonNumber& number = *python_number_at(text, place);
    out += text.substr(done, place - done);
    out += number.replacement;
    done = place + number.name.size();
  }
  out += text.substr(done);
  return out;
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
AnyJson parse_plain(std::string_view text, const std::string& source, FileRole role,
                    JsonLimits limits) {
  if (limits.refuse_duplicate_keys) {
    UniqueKeys unique(source, role);
    Json::sax_parse(text, &unique);
  }
  try {
    return AnyJson::parse(text);
  } catch (const Json::parse_error& error) {
    refuse_syntax(text, source, role, error);
  } catch (const Json::out_of_range&) {
    throw_file_error(
        role, fmt::format("expected numbers of at most 1.8e308 in {}, got a larger one", source));
  }
}

template <class AnyJson>
AnyJson parse_any(std::string_view text, const std::string& source, FileRole role,
                  JsonLimits limits) {
  // The parser would take a zero byte for the end of the text and not see what follows.
  if (text.find('\0') != text.npos) {
    throw_file_error(role, fmt::format("{} is not valid JSON: it contains a zero byte", source));
  }
  const auto numbers = scan(text, source, role, limits.depth);
  if (numbers.empty()) return parse_plain<AnyJson>(text, source, role, limits);
  return parse_plain<AnyJson>(with_nulls(text, numbers), source, role, limits);
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
