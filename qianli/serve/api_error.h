// Answers that say no, as OpenAI's API words them.
#pragma once

#include <stdexcept>
#include <string>

#include "qianli/base/error.h"

namespace qianli::serve {

struct ApiError : std::runtime_error {
  ApiError(int given_status, const std::string& message, std::string given_param = {},
           std::string given_code = {})
      : std::runtime_error(message),
        status(given_status),
        param(std::move(given_param)),
        code(std::move(given_code)) {}

  int status;
  std::string param, code;  // empty: null
};

// {"error": {"message", "type", "param", "code"}}
std::string to_json(const ApiError& error);
// What the engine refused: the request's fault, or the server's.
ApiError to_api_error(const Error& error);

}  // namespace qianli::serve
