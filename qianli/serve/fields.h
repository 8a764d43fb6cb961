// A JSON object read key by key, so that what nobody read is an error too.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "qianli/base/json.h"

namespace qianli::serve {

// All throw ApiError (400) with the parameter's name. A null is as good as nothing.
class Fields {
 public:
  // Refuses what is no JSON object.
  explicit Fields(std::string_view body);

  const OrderedJson* find(const std::string& key);
  std::optional<double> number(const std::string& key, double least, double most);
  std::optional<int64_t> integer(const std::string& key, int64_t least, int64_t most);
  bool flag(const std::string& key);
  std::optional<std::string> text(const std::string& key);
  // A text or a list of texts, none of them empty.
  std::vector<std::string> texts(const std::string& key, size_t most, size_t longest);
  // Known, and without effect here.
  void ignore(const std::string& key) { read_.insert(key); }
  // Anything but these values (as JSON) is refused as not supported.
  void expect(const std::string& key, const std::vector<OrderedJson>& values);
  // Refuses keys that were not asked for.
  void finish() const;

 private:
  OrderedJson json_;
  std::set<std::string> read_;
};

[[noreturn]] void refuse(const std::string& param, const std::string& expected,
                         const OrderedJson& got);

}  // namespace qianli::serve
