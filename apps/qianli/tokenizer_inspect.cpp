// qianli tokenizer inspect: what a tokenizer is, and how it cuts a text.
#include <fmt/core.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "apps/qianli/command.h"
#include "qianli/base/json.h"
#include "qianli/text/tokenizer.h"

namespace qianli::app {
namespace {

using text::Tokenizer;

struct Options {
  std::string model, text;
  bool has_text = false, json = false, no_special = false;
};

std::string named(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id ? fmt::format("{} ({})", tokenizer.token(*id), *id) : "none";
}

Json named_json(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id ? Json{{"id", *id}, {"token", tokenizer.token(*id)}} : Json(nullptr);
}

// The text of each token as it stands in a running decode; "" while a character is unfinished.
std::vector<std::string> pieces(const std::shared_ptr<const Tokenizer>& tokenizer,
                                std::span<const int32_t> ids) {
  std::vector<std::string> parts;
  text::StreamingDecoder stream(tokenizer);
  for (const int32_t id : ids) parts.push_back(stream.push(id));
  if (!parts.empty()) parts.back() += stream.finish();
  return parts;
}

Json inspect_json(const std::shared_ptr<const Tokenizer>& tokenizer, const Options& options) {
  Json special = Json::array();
  for (const int32_t id : tokenizer->added_tokens()) {
    if (tokenizer->is_special(id)) special.push_back(named_json(*tokenizer, id));
  }
  Json result{{"kind", tokenizer->kind()},
              {"vocab_size", tokenizer->vocab_size()},
              {"tokens", tokenizer->num_tokens()},
              {"fingerprint", tokenizer->fingerprint()},
              {"bos", named_json(*tokenizer, tokenizer->bos_id())},
              {"eos", named_json(*tokenizer, tokenizer->eos_id())},
              {"pad", named_json(*tokenizer, tokenizer->pad_id())},
              {"unk", named_json(*tokenizer, tokenizer->unk_id())},
              {"special_tokens", special}};
  if (!options.has_text) return result;
  const auto ids = tokenizer->encode(options.text, !options.no_special);
  result["ids"] = ids;
  for (const int32_t id : ids) result["pieces"].push_back(tokenizer->token(id));
  result["bytes_per_token"] =
      ids.empty() ? 0.0
                  : static_cast<double>(options.text.size()) / static_cast<double>(ids.size());
  return result;
}

void print_pieces(const std::shared_ptr<const Tokenizer>& tokenizer, const Options& options) {
  const auto ids = tokenizer->encode(options.text, !options.no_special);
  const auto parts = pieces(tokenizer, ids);
  const bool colored = ::isatty(STDOUT_FILENO) == 1;
  std::string line;
  for (size_t i = 0; i < parts.size(); ++i) {
    // Two background colours in turn on a terminal, brackets elsewhere.
    line += colored ? fmt::format("\x1b[{}m{}\x1b[0m", i % 2 == 0 ? 44 : 42, parts[i])
                    : fmt::format("[{}]", parts[i]);
  }
  fmt::print("{}\n{}\n", line, fmt::join(ids, " "));
  const double count = std::max<double>(1, static_cast<double>(ids.size()));
  fmt::print("{} bytes, {} tokens, {:.2f} bytes per token\n", options.text.size(), ids.size(),
             static_cast<double>(options.text.size()) / count);
}

void inspect(const Options& options) {
  const auto tokenizer = Tokenizer::load(options.model);
  if (options.json) {
    fmt::print("{}\n", inspect_json(tokenizer, options).dump(2));
    return;
  }
  const auto added = tokenizer->added_tokens();
  const auto special = std::count_if(added.begin(), added.end(),
                                     [&](int32_t id) { return tokenizer->is_special(id); });
  fmt::print(
      "kind           {}\nvocabulary     {} rows, {} tokens ({} added, {} of them special)\n",
      tokenizer->kind(), tokenizer->vocab_size(), tokenizer->num_tokens(), added.size(), special);
  fmt::print("bos            {}\neos            {}\npad            {}\nunk            {}\n",
             named(*tokenizer, tokenizer->bos_id()), named(*tokenizer, tokenizer->eos_id()),
             named(*tokenizer, tokenizer->pad_id()), named(*tokenizer, tokenizer->unk_id()));
  fmt::print("fingerprint    {}\n", tokenizer->fingerprint());
  if (options.has_text) print_pieces(tokenizer, options);
}

}  // namespace

void add_tokenizer_inspect(CLI::App& tokenizer) {
  const auto options = std::make_shared<Options>();
  CLI::App* sub =
      tokenizer.add_subcommand("inspect", "Kind, size, special tokens; the pieces of a text");
  sub->add_option(
         "model", options->model,
         "Folder with tokenizer files, or one of them (tokenizer.json, tokenizer.model, ...)")
      ->required();
  const CLI::Option* text = sub->add_option("--text", options->text, "Show how this text is split");
  sub->add_flag("--no-special-tokens", options->no_special,
                "Without what the tokenizer puts around a text (<s>, ...)");
  sub->add_flag("--json", options->json, "Print JSON");
  sub->callback([options, text] {
    options->has_text = text->count() > 0;
    inspect(*options);
  });
}

}  // namespace qianli::app
