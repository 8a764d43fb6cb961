#include "qianli/text/chat/thoughts.h"

#include "qianli/base/strings.h"

namespace qianli::text::chat {
namespace {

// The shortest stretches from the first word to the second go, then line feeds at the start.
std::string without_thoughts(const NamedTemplate& named, const std::string& text) {
  const std::string begin(trim(named.thought_begin)), end(trim(named.thought_end));
  std::string out;
  size_t at = 0;
  while (true) {
    const size_t first = text.find(begin, at);
    const size_t last = first == text.npos ? text.npos : text.find(end, first + begin.size());
    if (last == text.npos) break;
    out += text.substr(at, first - at);
    at = last + end.size();
  }
  out += text.substr(at);
  return out.substr(std::min(out.find_first_not_of('\n'), out.size()));
}

bool has_thought(const NamedTemplate& named, const std::string& text) {
  return text.find(trim(named.thought_begin)) != text.npos ||
         text.find(trim(named.thought_end)) != text.npos;
}

}  // namespace

void remove_thoughts(const NamedTemplate& named, Thinking thinking, bool last_answer_only,
                     std::vector<Message>& messages) {
  for (size_t i = 1; i < messages.size(); i += 2) {
    const bool last = i + 2 > messages.size();
    const bool removes = last_answer_only && !last ? true : thinking == Thinking::kOff;
    if (removes) messages[i].content = without_thoughts(named, messages[i].content);
  }
}

void mark_absent_thoughts(const NamedTemplate& named, Thinking thinking, bool last_answer_only,
                          const std::vector<Message>& messages, std::vector<Turn>& turns) {
  const Part thought{Part::Kind::kText, named.thought_begin + named.thought_end};
  for (size_t i = 0; i < turns.size(); ++i) {
    if (2 * i + 1 >= messages.size()) break;  // no answer yet
    if (last_answer_only && i + 1 < turns.size()) continue;
    if (has_thought(named, messages[2 * i + 1].content)) continue;
    Slot& target = turns[i].target;
    if (thinking == Thinking::kOn)
      target.insert(target.begin(), thought);
    else
      turns[i].source.push_back(thought);
  }
}

}  // namespace qianli::text::chat
