// Model, added tokens and post-processor of tokenizer.json.
#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "qianli/text/read_json.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

// No tokenizer comes near; an embedding table of this height would be absurd.
constexpr int64_t kMaxId = (int64_t{1} << 24) - 1;
constexpr size_t kMaxAddedTokenBytes = 4096;

std::optional<std::string> optional_string(const JsonView& json, std::string_view key) {
  const auto child = json.find(key);
  return child ? std::optional(std::string(child->string())) : std::nullopt;
}

void read_vocabulary(const JsonView& json, Vocabulary& vocabulary) {
  size_t count = 0, bytes = 0;
  int64_t largest = -1;
  for (const auto field : json.object()) {
    int64_t id = -1;
    if (field.value.get(id) != simdjson::SUCCESS || id < 0 || id > kMaxId) {
      json.refuse(fmt::format("ids from 0 to {}", kMaxId),
                  fmt::format("another for token '{}'", field.key));
    }
    ++count;
    bytes += field.key.size();
    largest = std::max(largest, id);
  }
  if (largest > static_cast<int64_t>(8 * count + 65536)) {
    json.refuse("ids without large gaps", fmt::format("id {} among {} tokens", largest, count));
  }
  vocabulary.reserve(count, bytes, static_cast<int32_t>(largest));
  for (const auto field : json.object()) {
    const int64_t id = field.value.get_int64().value_unsafe();
    const auto added = vocabulary.add(field.key, static_cast<int32_t>(id));
    if (added == Vocabulary::Added::kYes) continue;
    json.refuse("every token and id once", added == Vocabulary::Added::kIdTwice
                                               ? fmt::format("id {} twice", id)
                                               : fmt::format("token '{}' twice", field.key));
  }
}

// "a b", or ["a", "b"] in newer files. False for the "#version" line that old files carry.
bool read_merge(const JsonView& merges, simdjson::dom::element item, size_t index,
                std::array<std::string_view, 2>& pair) {
  std::string_view text;
  if (item.get(text) == simdjson::SUCCESS) {
    if (text.starts_with("#version")) return false;
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos) {
      merges.refuse("pairs of tokens", fmt::format("'{}' as number {}", text, index));
    }
    pair = {text.substr(0, space), text.substr(space + 1)};
    return true;
  }
  simdjson::dom::array list;
  if (item.get(list) != simdjson::SUCCESS || list.size() != 2 ||
      list.at(0).get(pair[0]) != simdjson::SUCCESS ||
      list.at(1).get(pair[1]) != simdjson::SUCCESS) {
    merges.refuse("pairs of tokens", fmt::format("something else as number {}", index));
  }
  return true;
}

class MergeReader {
 public:
  MergeReader(const JsonView& json, const BpeOptions& options, const Vocabulary& vocabulary)
      : json_(json), options_(options), vocabulary_(vocabulary) {
    const bool plain =
        options.continuing_subword_prefix.empty() && options.end_of_word_suffix.empty();
    if (plain && !options.byte_level && !options.ignore_merges) {
      cutter_ = std::make_unique<PieceCutter>(vocabulary);
    }
  }

  MergeTable read() {
    MergeTable table;
    const auto list = json_.array();
    size_t count = 0;
    for ([[maybe_unused]] const auto item : list) ++count;
    table.reserve(count);
    size_t index = 0;
    uint32_t rank = 0;
    for (const auto item : list) {
      std::array<std::string_view, 2> pair;
      if (read_merge(json_, item, index++, pair)) add(pair, rank++, table);
    }
    return table;
  }
  std::unique_ptr<const PieceCutter> cutter() { return std::move(cutter_); }

 private:
  int32_t id_of(std::string_view token) const {
    const auto id = vocabulary_.find(token);
    if (!id) json_.refuse("merges of tokens of the vocabulary", fmt::format("'{}'", token));
    return *id;
  }

  void add(const std::array<std::string_view, 2>& pair, uint32_t rank, MergeTable& table) {
    const auto& [left, right] = pair;
    const int32_t left_id = id_of(left), right_id = id_of(right);
    if (left.empty() || right.empty()) json_.refuse("merges of two tokens", "an empty one");
    const size_t prefix = options_.continuing_subword_prefix.size();
    if (right.size() < prefix) json_.refuse("the subword prefix", fmt::format("'{}'", right));
    merged_.assign(left).append(right.substr(prefix));
    table.set(left_id, right_id, {rank, id_of(merged_)});
    if (!cutter_) return;
    // A byte token or unk is one symbol, not its characters: then nothing may be cut.
    if (is_whole_symbol(left, left_id) || is_whole_symbol(right, right_id)) {
      cutter_.reset();
    } else {
      cutter_->join(left, right);
    }
  }

  bool is_whole_symbol(std::string_view token, int32_t id) const {
    return (token.size() == 6 && token.starts_with("<0x") && token.ends_with(">")) ||
           id == options_.unk_id;
  }

  const JsonView& json_;
  const BpeOptions& options_;
  const Vocabulary& vocabulary_;
  std::unique_ptr<PieceCutter> cutter_;
  std::string merged_;
};

bool has_all_bytes(const Vocabulary& vocabulary) {
  for (int byte = 0; byte < 256; ++byte) {
    if (!vocabulary.find(to_byte_level(std::string(1, static_cast<char>(byte))))) return false;
  }
  return true;
}

}  // namespace

void read_bpe_model(const JsonView& json, TokenizerImpl& tokenizer) {
  const auto type = json.string_or("type", json.find("merges") ? "BPE" : "without a type");
  if (type != "BPE") json.unsupported(fmt::format("model '{}'", type));
  if (const auto dropout = json.find("dropout")) json.unsupported("dropout");
  Vocabulary& vocabulary = tokenizer.vocabulary;
  read_vocabulary(json.at("vocab"), vocabulary);
  BpeOptions options;
  options.byte_level = tokenizer.pre_tokenizer.byte_level();
  options.byte_fallback = json.boolean_or("byte_fallback", false);
  options.fuse_unk = json.boolean_or("fuse_unk", false);
  options.ignore_merges = json.boolean_or("ignore_merges", false);
  options.continuing_subword_prefix = json.string_or("continuing_subword_prefix", "");
  options.end_of_word_suffix = json.string_or("end_of_word_suffix", "");
  if (const auto unk = optional_string(json, "unk_token")) {
    options.unk_id = vocabulary.find(*unk);
    const bool needed = !options.byte_level || !has_all_bytes(vocabulary);
    if (!options.unk_id && needed) {
      json.at("unk_token").refuse("a token of the vocabulary", fmt::format("'{}'", *unk));
    }
  }
  const auto merges = json.at("merges");
  MergeReader reader(merges, options, vocabulary);
  MergeTable table = reader.read();
  tokenizer.cutter = reader.cutter();
  tokenizer.model = std::make_unique<BpeModel>(vocabulary, std::move(table), std::move(options));
}

namespace {

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
    token.spelling = token.content;
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
  spell_added_tokens(tokenizer);
  // Special tokens go first: of two with one spelling the special one is found.
  for (const bool special : {true, false}) {
    for (const AddedToken& token : tokenizer.added) {
      if (token.special != special) continue;
      (token.normalized ? tokenizer.normalized_finder : tokenizer.raw_finder)
          .add(token, token.spelling);
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
