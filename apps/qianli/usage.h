// What is wrong with a command line, in the words of the house.
#pragma once

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace qianli::app {

// Throws a ConfigError for a command line that `app` could not parse: an unknown command or option
// with the nearest known one, else what the parser says.
[[noreturn]] void throw_usage_error(const CLI::App& app, int argc, char** argv,
                                    const CLI::ParseError& error);

}  // namespace qianli::app
