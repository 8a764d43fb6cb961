// qianli tokenizer encode | decode: text to ids and back. (train and inspect
// have files of their own.)
#include <fmt/core.h>
#include <fmt/format.h>

#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iterator>
#include <memory>

#include "apps/qianli/command.h"
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/base/stop.h"
#include "qianli/text/tokenizer.h"

namespace qianli::app {
namespace {

using text::Tokenizer;

struct Options {
  std::string model, text, input, ids;
  bool jsonl = false, json = false, no_special = false, skip_special = false;
  std::string clean_up = "never";
};

// Results go to standard output in large writes.
class Output {
 public:
  ~Output() { flush(); }
  void write(std::string_view text) {
    buffer_ += text;
    if (buffer_.size() > (size_t{1} << 20)) flush();
  }

 private:
  void flush() {
    std::fwrite(buffer_.data(), 1, buffer_.size(), stdout);
    buffer_.clear();
  }
  std::string buffer_;
};

// Calls body(line, number from 1) for each line of the file; lines end at \n alone, and a last line
// without one counts.
template <class Body>
void each_line(const std::string& path, const Body& body) {
  const std::string content = read_file(path, FileRole::kData, uint64_t{1} << 36);
  Progress progress("lines of " + fs::path(path).filename().string(), content.size(), "bytes");
  size_t number = 0;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    body(std::string_view(content).substr(begin, end - begin), ++number);
    begin = end + 1;
    progress.update(std::min(begin, content.size()));
    throw_if_stopped("tokenizer");
  }
}

std::string place(const Options& options, size_t number) {
  return fmt::format("{} line {}", options.input, number);
}

Json json_line(std::string_view line, const Options& options, size_t number, const char* key) {
  Json object = parse_json(line, place(options, number), FileRole::kData);
  if (!object.is_object() || !object.contains(key)) {
    throw DataError("tokenizer",
                    fmt::format("expected an object with '{}' at {}, got another value", key,
                                place(options, number)));
  }
  return object[key];
}

std::string text_of_line(std::string_view line, const Options& options, size_t number) {
  if (!options.jsonl) return std::string(line);
  const Json value = json_line(line, options, number, "text");
  if (value.is_string()) return value.get<std::string>();
  throw DataError("tokenizer",
                  fmt::format("expected a string as 'text' at {}", place(options, number)));
}

void print_ids(Output& out, std::span<const int32_t> ids, bool json) {
  const std::string list = fmt::format("{}", fmt::join(ids, json ? "," : " "));
  out.write(json ? "[" + list + "]" : list);
}

void check_source(const Options& options, const std::string& inline_value, const char* flag) {
  if (inline_value.empty() == options.input.empty()) {
    throw ConfigError("tokenizer", fmt::format("expected either {} or --input, got {}", flag,
                                               options.input.empty() ? "neither" : "both"));
  }
}

void encode(const Options& options, bool has_text) {
  if (!has_text) check_source(options, options.text, "--text");
  const auto tokenizer = Tokenizer::load(options.model);
  Output out;
  if (has_text) {
    print_ids(out, tokenizer->encode(options.text, !options.no_special), options.json);
    return out.write("\n");
  }
  bool first = true;
  std::vector<int32_t> ids;
  if (options.json) out.write("[");
  each_line(options.input, [&](std::string_view line, size_t number) {
    ids.clear();
    if (options.jsonl) {
      tokenizer->encode_to(text_of_line(line, options, number), !options.no_special, ids);
    } else {
      tokenizer->encode_to(line, !options.no_special, ids);
    }
    if (options.json && !first) out.write(",\n");
    first = false;
    print_ids(out, ids, options.json);
    if (!options.json) out.write("\n");
  });
  if (options.json) out.write("]\n");
}

// Numbers apart by spaces, commas or brackets: "1 2 3" and "[1, 2, 3]".
std::vector<int32_t> parse_ids(std::string_view text, const std::string& where) {
  std::vector<int32_t> ids;
  const std::string_view separators = " ,[]\t\r\n";
  for (size_t at = text.find_first_not_of(separators); at != text.npos;
       at = text.find_first_not_of(separators, at)) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end || id < 0) {
      throw DataError("tokenizer", fmt::format("expected token ids at {}, got '{}'", where,
                                               text.substr(at, std::min<size_t>(end - at, 40))));
    }
    ids.push_back(id);
    at = end;
  }
  return ids;
}

// The lists of a file: one a line, or with --jsonl the "ids" of each line, or a JSON list of lists
// (what encode --json prints).
std::vector<std::vector<int32_t>> read_id_lists(const Options& options) {
  std::vector<std::vector<int32_t>> lists;
  const std::string start =
      read_file(options.input, FileRole::kData, uint64_t{1} << 36).substr(0, 64);
  const size_t first = start.find_first_not_of(" \n\r\t");
  const size_t second = first == start.npos ? first : start.find_first_not_of(" \n\r\t", first + 1);
  if (!options.jsonl && second != start.npos && start[first] == '[' && start[second] == '[') {
    for (const Json& list : read_json(options.input, FileRole::kData, uint64_t{1} << 34)) {
      lists.push_back(parse_ids(list.dump(), options.input));
    }
    return lists;
  }
  each_line(options.input, [&](std::string_view line, size_t number) {
    const std::string json = options.jsonl ? json_line(line, options, number, "ids").dump() : "";
    lists.push_back(parse_ids(options.jsonl ? json : line, place(options, number)));
  });
  return lists;
}

text::DecodeOptions decode_options(const Options& options) {
  text::DecodeOptions decode{.skip_special_tokens = options.skip_special};
  if (options.clean_up == "file") decode.clean_up_spaces = text::CleanUp::kAsFile;
  if (options.clean_up == "always") decode.clean_up_spaces = text::CleanUp::kAlways;
  return decode;
}

void decode(const Options& options) {
  check_source(options, options.ids, "--ids");
  const auto tokenizer = Tokenizer::load(options.model);
  const auto decoding = decode_options(options);
  Output out;
  const auto print = [&](std::span<const int32_t> ids) {
    const std::string text = tokenizer->decode(ids, decoding);
    out.write(options.json ? Json(text).dump() : text);
  };
  if (options.input.empty()) {
    print(parse_ids(options.ids, "--ids"));
    return out.write("\n");
  }
  bool first = true;
  if (options.json) out.write("[");
  for (const auto& ids : read_id_lists(options)) {
    if (options.json && !first) out.write(",\n");
    first = false;
    print(ids);
    if (!options.json) out.write("\n");
  }
  if (options.json) out.write("]\n");
}

CLI::App* add_sub(CLI::App* parent, const char* name, const char* help, Options& options) {
  CLI::App* sub = parent->add_subcommand(name, help);
  sub->add_option(
         "model", options.model,
         "Folder with tokenizer files, or one of them (tokenizer.json, tokenizer.model, ...)")
      ->required();
  sub->add_flag("--json", options.json, "Print JSON");
  return sub;
}

}  // namespace

void add_tokenizer(CLI::App& app) {
  CLI::App* tokenizer =
      app.add_subcommand("tokenizer", "Train a tokenizer, encode and decode text, look inside");
  tokenizer->require_subcommand(1);
  add_tokenizer_train(*tokenizer);
  const auto options = std::make_shared<Options>();

  CLI::App* sub = add_sub(tokenizer, "encode", "Text to token ids", *options);
  const CLI::Option* text = sub->add_option("--text", options->text, "One text");
  sub->add_option("--input", options->input, "A file: every line is a text");
  sub->add_flag("--jsonl", options->jsonl,
                "Lines of --input are JSON objects; encode their \"text\"");
  sub->add_flag("--no-special-tokens", options->no_special,
                "Without what the tokenizer puts around a text (<s>, ...)");
  sub->callback([options, text] { encode(*options, text->count() > 0); });

  sub = add_sub(tokenizer, "decode", "Token ids to text", *options);
  sub->add_option("--ids", options->ids, "Ids: \"1 2 3\" or \"[1,2,3]\"");
  sub->add_option("--input", options->input,
                  "A file: a list of ids on every line, or what encode --json prints");
  sub->add_flag("--jsonl", options->jsonl,
                "Lines of --input are JSON objects; decode their \"ids\"");
  sub->add_flag("--skip-special-tokens", options->skip_special, "Leave special tokens out");
  sub->add_option(
         "--clean-up-spaces", options->clean_up,
         "Remove spaces before punctuation: never, always, or as tokenizer_config.json says (file)")
      ->check(CLI::IsMember({"never", "file", "always"}))
      ->capture_default_str();
  sub->callback([options] { decode(*options); });
  add_tokenizer_chat(*tokenizer);
  add_tokenizer_inspect(*tokenizer);
}

}  // namespace qianli::app
