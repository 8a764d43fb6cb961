#define PCRE2_CODE_UNIT_WIDTH 8
#include "qianli/config/name_pattern.h"

#include <fmt/core.h>
#include <fnmatch.h>
#include <pcre2.h>

#include "qianli/base/error.h"

namespace qianli::config {
namespace {

constexpr uint32_t kMatchLimit = 1'000'000;  // steps of one match
constexpr size_t kPatternBytes = 4096;

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

std::shared_ptr<const void> compile(std::string_view expression) {
  int code = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* compiled =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  if (compiled == nullptr) {
    throw ConfigError("config", fmt::format("expected a regular expression, got '/{}/': {} at {}",
                                            expression, pcre2_message(code), offset));
  }
  return {compiled,
          [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); }};
}

}  // namespace

NamePattern::NamePattern(std::string pattern) : glob_(std::move(pattern)) {
  if (glob_.empty() || glob_.size() > kPatternBytes) {
    throw ConfigError("config", fmt::format("expected a pattern of 1 to {} bytes, got {}",
                                            kPatternBytes, glob_.size()));
  }
  if (glob_.front() != '/') return;
  if (glob_.size() < 3 || glob_.back() != '/') {
    throw ConfigError("config",
                      fmt::format("expected a regular expression in slashes, got '{}'", glob_),
                      "end it with a slash, as in /norm/");
  }
  expression_ = compile(std::string_view(glob_).substr(1, glob_.size() - 2));
}

bool NamePattern::matches(std::string_view name) const {
  const std::string subject(name);
  if (!expression_) return ::fnmatch(glob_.c_str(), subject.c_str(), 0) == 0;
  const auto* code = static_cast<const pcre2_code*>(expression_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
      pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(subject.data()), subject.size(),
                                 0, 0, data.get(), context.get());
  if (result >= 0) return true;
  if (result == PCRE2_ERROR_NOMATCH) return false;
  throw ConfigError(
      "config",
      fmt::format("expected '{}' to match '{}' quickly: {}", glob_, subject, pcre2_message(result)),
      "use a simpler expression");
}

}  // namespace qianli::config
