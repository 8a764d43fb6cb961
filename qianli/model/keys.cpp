// Keys of config.json that hold fields of a spec.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>

#include "qianli/model/config_reader.h"
#include "qianli/model/family.h"
#include "qianli/model/spec_fields.h"

namespace qianli::model {
namespace {

// Takes the value under a key, by the kind of the field.
struct KeyReader {
  const ConfigReader& config;
  const std::string& key;

  void operator()(std::string* value) const { *value = config.text(key, ""); }
  void operator()(bool* value) const { *value = config.flag(key, false); }
  void operator()(int64_t* value) const { *value = config.integer(key); }
  void operator()(double* value) const { *value = config.number(key); }
  void operator()(std::optional<int64_t>* value) const { *value = config.integer(key); }
  void operator()(std::optional<double>* value) const { *value = config.number(key); }
  void operator()(std::vector<int64_t>* values) const { *values = config.integers(key); }
  void operator()(std::vector<double>* values) const { *values = config.numbers(key); }
  void operator()(const WordField& field) const {
    if (!field.set(config.text(key, ""))) config.fail(key, "one of " + words(field));
  }
  void operator()(const WordListField& field) const {
    if (!field.set(config.texts(key))) config.fail(key, "a list of known words");
  }

  static std::string words(const WordField& field) {
    std::string all;
    for (const std::string& word : field.words) all += (all.empty() ? "" : ", ") + word;
    return all;
  }
};

// Whether null means "none" rather than "the default".
struct TakesNone {
  template <class Number>
  bool operator()(std::optional<Number>* value) const {
    value->reset();
    return true;
  }
  template <class Other>
  bool operator()(const Other&) const {
    return false;
  }
};

struct KeyWriter {
  OrderedJson operator()(const std::string* value) const { return *value; }
  OrderedJson operator()(const bool* value) const { return *value; }
  template <class Number>
  OrderedJson operator()(const Number* value) const {
    return *value;
  }
  template <class Number>
  OrderedJson operator()(const std::optional<Number>* value) const {
    return *value ? OrderedJson(**value) : OrderedJson();
  }
  template <class Number>
  OrderedJson operator()(const std::vector<Number>* values) const {
    return *values;
  }
  OrderedJson operator()(const WordField& field) const { return field.get(); }
  OrderedJson operator()(const WordListField& field) const { return field.get(); }
};

void set_from(const ConfigReader& config, const Key& key, FieldValue& field, const Json& value) {
  const Json object{{key.key, value}};
  std::visit(KeyReader{ConfigReader(object, config.source()), key.key}, field);
}

bool of_a_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

}  // namespace

void read_keys(const ConfigReader& config, std::span<const Key> keys, ModelSpec& spec) {
  for (const Key& key : keys) {
    auto field = field_at(spec, key.field);
    if (!field) throw std::logic_error("no field " + key.field);
    const bool other = !key.also.empty() && config.has(key.also);
    if (other && config.has(key.key) && config.raw(key.also) != config.raw(key.key)) {
      config.fail(key.also, "the same as for '" + key.key + "'");
    }
    if (other || config.has(key.key)) {
      std::visit(KeyReader{config, other ? key.also : key.key}, *field);
      continue;
    }
    const bool null = config.contains(key.key);
    if (null && !key.null && std::visit(TakesNone{}, *field)) continue;
    const Fallback& fallback = null && key.null ? *key.null : key.absent;
    if (!fallback.given()) {
      std::visit(KeyReader{config, key.key}, *field);  // says what is missing
      config.fail(key.key, "a value");
    }
    const Json value = fallback.value(spec);
    if (!value.is_null()) {
      set_from(config, key, *field, value);
    } else {
      std::visit(TakesNone{}, *field);
    }
  }
}

void write_keys(const ModelSpec& spec, std::span<const Key> keys, OrderedJson& config) {
  ModelSpec copy = spec;
  for (const Key& key : keys) {
    if (!has_field(spec, key.field)) continue;
    OrderedJson& value = config[key.key] = std::visit(KeyWriter{}, *field_at(copy, key.field));
    if (!key.integral || !value.is_number_float()) continue;
    const double number = value.get<double>();
    if (number == std::floor(number) && std::abs(number) < 0x1p53) {
      value = static_cast<int64_t>(number);
    }
  }
}

std::string in_words_of(const Family& family, const std::string& message) {
  std::map<std::string, std::string, std::less<>> words{
      {"rope.base", "rope_theta"},
      {"rope.fraction", "partial_rotary_factor"},
      {"rope.scaling", "rope_scaling"},
      {"rope.scaling.original_max_positions", "rope_scaling.original_max_position_embeddings"}};
  for (const auto* keys : {&family.others, &family.keys}) {
    for (const Key& key : *keys) words[key.field] = key.key;
  }
  std::string text;
  for (size_t at = 0; at < message.size();) {
    size_t end = at;
    while (end < message.size() &&
           (of_a_name(message[end]) || (message[end] == '.' && end + 1 < message.size() &&
                                        end > at && of_a_name(message[end + 1])))) {
      ++end;
    }
    if (end == at) {
      text += message[at++];
      continue;
    }
    std::string word = message.substr(at, end - at);
    if (const auto found = words.find(word); found != words.end()) {
      word = found->second;
    } else if (word.starts_with("rope.scaling.")) {
      word = "rope_scaling." + word.substr(13);
    }
    text += word;
    at = end;
  }
  return text;
}

}  // namespace qianli::model
