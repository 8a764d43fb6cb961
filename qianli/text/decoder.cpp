#include "qianli/text/decoder.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "qianli/text/bpe_model.h"
#include "qianli/text/byte_tokens.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at; (at = text.find(from, done)) != std::string_view::npos; done = at + from.size()) {
    out.append(text.substr(done, at - done));
    out += to;
  }
  out.append(text.substr(done));
  return out;
}

}  // namespace

DecodeStream::DecodeStream(const std::vector<DecodeStep>& steps, bool clean_up_spaces)
    : steps_(steps), states_(steps.size()), clean_up_(clean_up_spaces) {}

void DecodeStream::push(std::string_view token, std::string& out) { run(0, token, out); }

void DecodeStream::run(size_t index, std::string_view token, std::string& out) {
  using Kind = DecodeStep::Kind;
  if (index == steps_.size()) return emit(token, out);
  State& state = states_[index];
  switch (steps_[index].kind) {
    case Kind::kByteLevel:
      return byte_level(index, token, out);
    case Kind::kByteFallback:
      return byte_fallback(index, token, out);
    case Kind::kReplace:
      return replace(index, token, out);
    case Kind::kStrip:
      return fused_before(index) ? strip_text(index, token, out) : strip_token(index, token, out);
    case Kind::kReplaceText:
      return replace_text(index, token, out);
    case Kind::kWordPiece:
      return word_piece(index, token, out);
    case Kind::kEndOfWord:
      return end_of_word(index, token, out);
    case Kind::kSentencePiece:
      return sentencepiece(index, token, out);
    case Kind::kMetaspace:
      return metaspace(index, token, out);
    case Kind::kFuse:
      return run(index + 1, token, out);
    case Kind::kJoinWithSpaces:
      if (state.started) run(index + 1, " ", out);
      state.started = true;
      return run(index + 1, token, out);
  }
}

bool DecodeStream::fused_before(size_t index) const {
  return std::any_of(steps_.begin(), steps_.begin() + static_cast<std::ptrdiff_t>(index),
                     [](const DecodeStep& step) {
                       return step.kind == DecodeStep::Kind::kFuse ||
                              step.kind == DecodeStep::Kind::kByteLevel;
                     });
}

// A token outside the alphabet (an added token with a space) stands for its own UTF-8.
void DecodeStream::byte_level(size_t index, std::string_view token, std::string& out) {
  std::string& bytes = states_[index].held;
  const size_t before = bytes.size();
  for (size_t at = 0; at < token.size();) {
    const Decoded c = decode_char(token.data() + at);
    const int byte = byte_of_level_char(c.code);
    if (byte < 0) {
      bytes.resize(before);
      bytes += token;
      break;
    }
    bytes.push_back(static_cast<char>(byte));
    at += c.size;
  }
  const size_t open = incomplete_tail(bytes);
  const std::string_view whole = std::string_view(bytes).substr(0, bytes.size() - open);
  if (whole.empty()) return;
  if (valid_utf8_prefix(whole) == whole.size()) {
    run(index + 1, whole, out);
  } else {
    std::string text;
    append_lossy(text, whole);
    run(index + 1, text, out);
  }
  bytes.erase(0, bytes.size() - open);
}

void DecodeStream::byte_fallback(size_t index, std::string_view token, std::string& out) {
  const int byte = byte_of_token(token);
  if (byte >= 0) {
    states_[index].held.push_back(static_cast<char>(byte));
    return;
  }
  end_byte_run(index, out);
  run(index + 1, token, out);
}

void DecodeStream::end_byte_run(size_t index, std::string& out) {
  const std::string bytes = std::exchange(states_[index].held, {});
  if (bytes.empty()) return;
  if (valid_utf8_prefix(bytes) == bytes.size()) return run(index + 1, bytes, out);
  for (size_t i = 0; i < bytes.size(); ++i) run(index + 1, "\uFFFD", out);
}

void DecodeStream::replace(size_t index, std::string_view token, std::string& out) {
  const DecodeStep& step = steps_[index];
  std::string text;
  size_t done = 0;
  Match matches[16];
  for (size_t count = std::size(matches); count == std::size(matches);) {
    count = step.pattern->find(token, done, matches);
    for (size_t i = 0; i < count; ++i) {
      text.append(token.substr(done, matches[i].begin - done));
      text += step.content;
      done = matches[i].end;
    }
  }
  text.append(token.substr(done));
  run(index + 1, text, out);
}

void DecodeStream::strip_token(size_t index, std::string_view token, std::string& out) {
  const DecodeStep& step = steps_[index];
  for (size_t i = 0; i < step.start && token.starts_with(step.content); ++i) {
    token.remove_prefix(step.content.size());
  }
  for (size_t i = 0; i < step.stop && token.ends_with(step.content); ++i) {
    token.remove_suffix(step.content.size());
  }
  run(index + 1, token, out);
}

void DecodeStream::strip_text(size_t index, std::string_view text, std::string& out) {
  const DecodeStep& step = steps_[index];
  State& state = states_[index];
  while (state.stripping && !text.empty()) {
    state.stripping = state.stripped < step.start && text.starts_with(step.content);
    if (!state.stripping) break;
    text.remove_prefix(step.content.size());
    ++state.stripped;
  }
  state.held += text;
  // Characters at the end that may turn out to be the last ones stay.
  std::string_view known = state.held;
  for (size_t i = 0; i < step.stop && known.ends_with(step.content); ++i) {
    known.remove_suffix(step.content.size());
  }
  if (known.empty()) return;
  const size_t size = known.size();
  run(index + 1, known, out);
  state.held.erase(0, size);
}

void DecodeStream::replace_text(size_t index, std::string_view text, std::string& out) {
  const DecodeStep& step = steps_[index];
  std::string& held = states_[index].held;
  held += text;
  std::string known;
  size_t done = 0;
  for (size_t at; (at = held.find(step.from, done)) != std::string::npos;
       done = at + step.from.size()) {
    known.append(held, done, at - done);
    known += step.content;
  }
  // The end may be the beginning of another occurrence.
  size_t open = std::min(held.size() - done, step.from.size() - 1);
  while (open > 0 && !step.from.starts_with(std::string_view(held).substr(held.size() - open))) {
    --open;
  }
  known.append(held, done, held.size() - open - done);
  held.erase(0, held.size() - open);
  if (!known.empty()) run(index + 1, known, out);
}

void DecodeStream::word_piece(size_t index, std::string_view token, std::string& out) {
  const DecodeStep& step = steps_[index];
  std::string text;
  if (std::exchange(states_[index].started, true)) {
    if (token.starts_with(step.content)) {
      token.remove_prefix(step.content.size());
    } else {
      text = ' ';
    }
  }
  text += token;
  if (step.start == 1) {
    // As for whole texts, with one rule more that stands between the others.
    text = clean_up_spaces(std::move(text), true);
  }
  run(index + 1, text, out);
}

void DecodeStream::end_of_word(size_t index, std::string_view token, std::string& out) {
  State& state = states_[index];
  const std::string previous = std::exchange(state.held, std::string(token));
  if (!std::exchange(state.started, true)) return;
  run(index + 1, replaced(previous, steps_[index].content, " "), out);
}

// Bytes become characters, each byte that is in none U+FFFD. Of the first text the leading
// `content` goes when `start` is 1; with `stop` 1 it goes from the tokens behind, too, as long as
// there is no text. All others become spaces.
void DecodeStream::sentencepiece(size_t index, std::string_view token, std::string& out) {
  const DecodeStep& step = steps_[index];
  State& state = states_[index];
  const int byte = step.bytes ? byte_of_token(token) : -1;
  if (byte >= 0) {
    state.held.push_back(static_cast<char>(byte));
    return sentencepiece_bytes(index, false, out);
  }
  sentencepiece_bytes(index, true, out);
  if (!state.started && step.start == 1 && token.starts_with(step.content)) {
    token.remove_prefix(step.content.size());
    state.started = step.stop == 0;
  }
  const std::string text = replaced(token, step.content, " ");
  if (text.empty()) return;
  state.started = true;
  run(index + 1, text, out);
}

void DecodeStream::sentencepiece_bytes(size_t index, bool at_end, std::string& out) {
  State& state = states_[index];
  size_t done = 0;
  while (done < state.held.size()) {
    const std::string_view rest = std::string_view(state.held).substr(done);
    const bool open = incomplete_tail(rest) == rest.size();
    if (open && !at_end) break;
    const bool whole = valid_utf8_prefix(rest) > 0;
    const size_t size = whole ? decode_char(rest.data()).size : 1;
    run(index + 1, whole ? rest.substr(0, size) : "\uFFFD", out);
    state.started = true;
    done += size;
  }
  state.held.erase(0, done);
}

void DecodeStream::metaspace(size_t index, std::string_view token, std::string& out) {
  const DecodeStep& step = steps_[index];
  const bool drops = step.start == 1 && !states_[index].started;
  states_[index].started = true;
  std::string text;
  while (!token.empty()) {
    const size_t at = std::min(token.find(step.content), token.size());
    text.append(token.substr(0, at));
    if (at == token.size()) break;
    if (!drops) text += ' ';
    token.remove_prefix(at + step.content.size());
  }
  run(index + 1, text, out);
}

void DecodeStream::finish_step(size_t index, std::string& out) {
  State& state = states_[index];
  const DecodeStep& step = steps_[index];
  if (step.kind == DecodeStep::Kind::kByteFallback) {
    end_byte_run(index, out);
  } else if (step.kind == DecodeStep::Kind::kByteLevel && !state.held.empty()) {
    std::string text;
    append_lossy(text, state.held);
    run(index + 1, text, out);
  } else if (step.kind == DecodeStep::Kind::kReplaceText) {
    run(index + 1, std::exchange(state.held, {}), out);
  } else if (step.kind == DecodeStep::Kind::kEndOfWord && state.started) {
    run(index + 1, replaced(state.held, step.content, ""), out);
  } else if (step.kind == DecodeStep::Kind::kSentencePiece) {
    sentencepiece_bytes(index, true, out);
  }
  // What Strip still holds are the characters to strip.
  state = State{};
}

void DecodeStream::finish(std::string& out) {
  for (size_t i = 0; i < steps_.size(); ++i) finish_step(i, out);
  out += clean_up_spaces(std::exchange(unclean_, {}));
}

// With clean-up, text is cut only behind a character that no pattern of the clean-up continues
// after: each pattern is a space, then of "'nvr" all but its last character.
void DecodeStream::emit(std::string_view text, std::string& out) {
  if (!clean_up_) {
    out += text;
    return;
  }
  unclean_ += text;
  size_t cut = unclean_.size();
  while (cut > 0 && std::string_view(" 'nvr").find(unclean_[cut - 1]) != std::string_view::npos)
    --cut;
  out += clean_up_spaces(unclean_.substr(0, cut));
  unclean_.erase(0, cut);
}

std::string clean_up_spaces(std::string text, bool word_piece) {
  if (text.find(' ') == std::string::npos) return text;
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) {
    if (from == " do not" && !word_piece) continue;
    text = replaced(text, from, to);
  }
  return text;
}

}  // namespace qianli::text
