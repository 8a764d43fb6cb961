#include "qianli/serve/api_error.h"

#include "qianli/base/json.h"

namespace qianli::serve {
namespace {

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

OrderedJson text_or_null(const std::string& text) {
  return text.empty() ? OrderedJson() : OrderedJson(text);
}

}  // namespace

std::string to_json(const ApiError& error) {
  const OrderedJson answer{{"error",
                            {{"message", error.what()},
                             {"type", type_of(error.status)},
                             {"param", text_or_null(error.param)},
                             {"code", text_or_null(error.code)}}}};
  return answer.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

ApiError to_api_error(const Error& error) {
  switch (error.code()) {
    case ExitCode::kUsage:
    case ExitCode::kData:
    case ExitCode::kMemory:
      return {400, error.what()};
    default:
      return {500, error.what()};
  }
}

}  // namespace qianli::serve
