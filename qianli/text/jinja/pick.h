// "a.b.0" of an item, as filters take it in `attribute`. Internal to the filters.
#pragma once

#include "qianli/text/jinja/callable.h"

namespace qianli::text::jinja {

class AttributePath {
 public:
  // A text with dots, an integer, or none (the item itself).
  AttributePath(Runtime& runtime, const Value& attribute);
  // An undefined part becomes `otherwise` where that is given.
  Value of(Runtime& runtime, Value item, const Value& otherwise = {}) const;

 private:
  std::vector<Value> parts_;
};

}  // namespace qianli::text::jinja
