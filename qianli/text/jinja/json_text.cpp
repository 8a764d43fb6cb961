// json.dumps, as transformers gives it to the tojson filter.
#include <algorithm>
#include <cmath>

#include "qianli/text/jinja/runtime.h"
#include "qianli/text/jinja/strings.h"

namespace qianli::text::jinja {
namespace {

class JsonWriter {
 public:
  JsonWriter(Meter& meter, const JsonStyle& style) : meter_(meter), style_(style) {}

  void write(const Value& value, int level) {
    const DepthGuard guard(meter_);
    switch (value.kind()) {
      case Kind::kNone:
        append("null");
        return;
      case Kind::kBool:
        append(value.as_boolean() ? "true" : "false");
        return;
      case Kind::kInteger:
        append(std::to_string(value.as_integer()));
        return;
      case Kind::kFloat:
        append(real(value.as_real()));
        return;
      case Kind::kString:
        append(quote_json(value.text(), style_.ascii_only));
        return;
      case Kind::kList:
      case Kind::kTuple:
        write_list(value.items(), level + 1);
        return;
      case Kind::kDict:
        write_dict(value.dict(), level + 1);
        return;
      default:
        throw TemplateError("Object of type " + type_name(value) + " is not JSON serializable");
    }
  }
  std::string take() { return std::move(out_); }

 private:
  void append(std::string_view text) {
    out_ += text;
    meter_.work(text.size());
    meter_.check_fits(out_.size());
  }

  static std::string real(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return real_text(value);
  }

  void new_line(int level) {
    if (!style_.indented) return;
    const size_t size = 1 + static_cast<size_t>(level) * style_.indent.size();
    meter_.work(size);
    meter_.check_fits(out_.size() + size);
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += style_.indent;
  }

  void write_list(const std::vector<Value>& items, int level) {
    if (items.empty()) return append("[]");
    append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) append(style_.item_separator);
      new_line(level);
      write(items[i], level);
    }
    new_line(level - 1);
    append("]");
  }

  std::string key_text(const Value& key) const {
    switch (key.kind()) {
      case Kind::kString:
        return key.text();
      case Kind::kNone:
        return "null";
      case Kind::kBool:
        return key.as_boolean() ? "true" : "false";
      case Kind::kInteger:
        return std::to_string(key.as_integer());
      case Kind::kFloat:
        return real(key.as_real());
      default:
        throw TemplateError("keys must be str, int, float, bool or None, not " + type_name(key));
    }
  }

  void write_dict(const DictObject& dict, int level) {
    if (dict.entries.empty()) return append("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return less(meter_, a->first, b->first);
      });
    }
    append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) append(style_.item_separator);
      new_line(level);
      append(quote_json(key_text(entries[i]->first), style_.ascii_only));
      append(style_.key_separator);
      write(entries[i]->second, level);
    }
    new_line(level - 1);
    append("}");
  }

  Meter& meter_;
  const JsonStyle& style_;
  std::string out_;
};

}  // namespace

std::string to_json(Meter& meter, const Value& value, const JsonStyle& style) {
  JsonWriter writer(meter, style);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace qianli::text::jinja
