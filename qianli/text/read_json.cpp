#include "qianli/text/read_json.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/text/extra_tokens.h"

namespace qianli::text {

void read_tokenizer_json(std::string_view json, const std::vector<AddedToken>& extra,
                         TokenizerImpl& tokenizer) {
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  const auto error = parser.parse(json.data(), json.size()).get(root);
  if (error != simdjson::SUCCESS) {
    throw DataError("tokenizer", fmt::format("expected JSON in {}, got: {}", tokenizer.source,
                                             simdjson::error_message(error)));
  }
  const JsonView view(root, tokenizer.source);
  const auto version = view.string_or("version", "1.0");
  if (version != "1.0") view.unsupported(fmt::format("version '{}'", version));
  for (const char* key : {"truncation", "padding"}) {
    if (view.find(key)) {
      log::warn("tokenizer", "'{}' of {} is not applied: texts keep their length", key,
                tokenizer.source);
    }
  }
  if (const auto normalizer = view.find("normalizer")) {
    tokenizer.normalizer = read_normalizer(*normalizer);
  }
  if (const auto pre_tokenizer = view.find("pre_tokenizer")) {
    read_pre_tokenizer(*pre_tokenizer, tokenizer.pre_tokenizer);
  }
  read_model(view.at("model"), tokenizer);
  if (const auto added = view.find("added_tokens")) read_added_tokens(*added, tokenizer);
  tokenizer.num_own_added = tokenizer.added.size();
  add_extra_tokens(extra, tokenizer);
  finish_added_tokens(tokenizer);
  if (const auto post_processor = view.find("post_processor")) {
    read_post_processor(*post_processor, tokenizer);
  }
  const auto decoder = view.find("decoder");
  if (decoder) {
    tokenizer.decoder = read_decoder(*decoder);
  } else {
    tokenizer.decoder = {{DecodeStep::Kind::kJoinWithSpaces, {}, 0, 0, nullptr}};
  }
}

void read_pipeline(const Pipeline& pipeline, TokenizerImpl& tokenizer) {
  simdjson::dom::parser parser;
  const auto view = [&](const std::string& json) {
    return JsonView(parser.parse(json).value(), tokenizer.source);
  };
  if (!pipeline.normalizer.empty()) {
    tokenizer.normalizer = read_normalizer(view(pipeline.normalizer));
  }
  if (!pipeline.pre_tokenizer.empty()) {
    read_pre_tokenizer(view(pipeline.pre_tokenizer), tokenizer.pre_tokenizer);
  }
  tokenizer.decoder = read_decoder(view(pipeline.decoder));
}

}  // namespace qianli::text
