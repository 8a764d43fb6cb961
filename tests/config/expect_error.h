// Checks that a call throws ConfigError whose message holds some words.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "qianli/base/error.h"

namespace qianli::testing {

template <class Call>
void expect_config_error(Call call, const std::string& words) {
  try {
    call();
    ADD_FAILURE() << "expected a ConfigError with: " << words;
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos)
        << "got: " << error.what() << "\nexpected words: " << words;
  }
}

}  // namespace qianli::testing
