// Added tokens and post-processor of tokenizer.json.
#include <fmt/core.h>

#include <algorithm>

#include "qianli/text/read_json.h"

namespace qianli::text {
namespace {

constexpr size_t kMaxAddedTokenBytes = 4096;

AddedToken read_added_token(const JsonView& json) {
  AddedToken token;
  token.id = static_cast<int32_t>(json.at("id").integer(0, kMaxId));
  token.content = json.at("content").string();
  token.single_word = json.boolean_or("single_word", false);
  token.lstrip = json.boolean_or("lstrip", false);
  token.rstrip = json.boolean_or("rstrip", false);
  token.normalized = json.boolean_or("normalized", true);
  token.special = json.boolean_or("special", false);
  if (token.content.size() > kMaxAddedTokenBytes) {
    json.refuse(fmt::format("an added token of at most {} bytes", kMaxAddedTokenBytes),
                fmt::format("{} bytes", token.content.size()));
  }
  return token;
}

void spell_added_tokens(TokenizerImpl& tokenizer) {
  for (AddedToken& token : tokenizer.added) {
    if (token.spelling.empty()) token.spelling = token.content;
    if (token.normalized && tokenizer.normalizer) tokenizer.normalizer->apply(token.spelling);
  }
  for (AddedToken& token : tokenizer.added) {
    const auto named = tokenizer.added_by_content.find(token.spelling);
    token.skipped =
        named != tokenizer.added_by_content.end() && tokenizer.added[named->second].special;
  }
}

}  // namespace

// The reference library gives an added token the model's id of the same text, or else the next free
// number behind the vocabulary, whatever the file says; a file that disagrees is refused.
void read_added_tokens(const JsonView& json, TokenizerImpl& tokenizer) {
  const int32_t model_size = tokenizer.vocabulary.size();
  int32_t largest = -1;
  for (const auto& item : json.items()) {
    AddedToken token = read_added_token(item);
    if (token.content.empty()) continue;
    const auto known = tokenizer.vocabulary.find(token.content);
    const int32_t expected = known.value_or(largest >= model_size ? largest + 1 : model_size);
    if (token.id != expected) {
      item.refuse(fmt::format("id {} for '{}' (the next free one)", expected, token.content),
                  fmt::format("{}", token.id));
    }
    if (tokenizer.added_by_content.contains(token.content) ||
        tokenizer.added_by_id.contains(token.id) ||
        (!known && tokenizer.vocabulary.has(token.id))) {
      item.refuse("an added token of its own",
                  fmt::format("'{}' with id {} a second time", token.content, token.id));
    }
    largest = std::max(largest, token.id);
    tokenizer.added_by_content.emplace(token.content, tokenizer.added.size());
    tokenizer.added_by_id.emplace(token.id, tokenizer.added.size());
    tokenizer.added.push_back(std::move(token));
  }
}

void finish_added_tokens(TokenizerImpl& tokenizer) {
  spell_added_tokens(tokenizer);
  // Special tokens go first: of two with one spelling the special one is found.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokenizer.added) {
      if (token.special != special || !token.matched) continue;
      if (token.normalized) {
        tokenizer.normalized_finder.add(token, token.spelling);
      } else {
        tokenizer.raw_finder.add(token, token.content);
      }
    }
  }
}

namespace {

void add_template(const JsonView& json, TokenizerImpl& tokenizer, std::vector<int32_t>& before,
                  std::vector<int32_t>& after) {
  bool seen = false;
  for (const auto& piece : json.at("single").items()) {
    if (const auto sequence = piece.find("Sequence")) {
      if (seen || sequence->at("id").string() != "A")
        piece.unsupported("a template with another text");
      seen = true;
      continue;
    }
    const auto name = piece.at("SpecialToken").at("id").string();
    for (const auto& id : json.at("special_tokens").at(name).at("ids").items()) {
      const auto number = static_cast<int32_t>(id.integer(0, kMaxId));
      if (tokenizer.token(number).empty())
        id.refuse("the id of a token", fmt::format("{}", number));
      (seen ? after : before).push_back(number);
    }
  }
  if (!seen) json.unsupported("a template without the text");
}

// Bert and Roberta: ["</s>", 2].
int32_t id_of_pair(const JsonView& json) {
  const auto items = json.items();
  if (items.size() != 2) json.refuse("a token and its id", fmt::format("{} items", items.size()));
  return static_cast<int32_t>(items[1].integer(0, kMaxId));
}

void add_post_processor(const JsonView& json, TokenizerImpl& tokenizer, int depth) {
  const auto type = json.type();
  if (type == "Sequence") {
    for (const auto& item : sequence_items(json, "processors", depth)) {
      add_post_processor(item, tokenizer, depth + 1);
    }
    return;
  }
  std::vector<int32_t> before, after;
  if (type == "TemplateProcessing") {
    add_template(json, tokenizer, before, after);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    before.push_back(id_of_pair(json.at("cls")));
    after.push_back(id_of_pair(json.at("sep")));
  } else if (type != "ByteLevel") {  // ByteLevel changes offsets only
    json.unsupported(fmt::format("post-processor '{}'", type));
  }
  tokenizer.prefix.insert(tokenizer.prefix.begin(), before.begin(), before.end());
  tokenizer.suffix.insert(tokenizer.suffix.end(), after.begin(), after.end());
}

}  // namespace

void read_post_processor(const JsonView& json, TokenizerImpl& tokenizer) {
  add_post_processor(json, tokenizer, 0);
}

}  // namespace qianli::text
