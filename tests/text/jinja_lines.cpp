// Renders chat templates for tools/reference/check_jinja.py. Each line of standard input is a JSON
// object with "template" and "variables"; each line of the output has "text" and "generations"
// (pairs of byte offsets; null where their place is not known), or "error".
#include <iostream>
#include <string>

#include "qianli/base/error.h"
#include "qianli/text/jinja/template.h"

namespace {

qianli::OrderedJson render(const std::string& line) {
  using namespace qianli;
  const OrderedJson request = parse_ordered_json(line, "standard input", FileRole::kData);
  std::tm now{};
  now.tm_year = 125, now.tm_mon = 1, now.tm_mday = 3, now.tm_hour = 14, now.tm_min = 5,
  now.tm_wday = 1, now.tm_yday = 33;
  try {
    const text::jinja::Template chat(request["template"].get<std::string>(), "template");
    const auto rendered = chat.render(request["variables"], now);
    OrderedJson ranges = OrderedJson::array();
    for (const auto& range : rendered.generations) ranges.push_back({range.begin, range.end});
    if (rendered.nested_generation) ranges = nullptr;
    return {{"text", rendered.text}, {"generations", ranges}};
  } catch (const Error& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);)
    std::cout << render(line).dump() << std::endl;
}
