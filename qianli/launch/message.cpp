#include "qianli/launch/message.h"

#include <fmt/core.h>
#include <signal.h>

#include <charconv>
#include <concepts>
#include <optional>
#include <type_traits>

#include "qianli/base/error.h"

namespace qianli::launch {
namespace {

constexpr int kMostAttempts = 1 << 30;
constexpr int kMostWorld = 1 << 28;  // kMostNodes * kMostProcesses
constexpr int kMostMilliseconds = 1 << 30;

// The fields of every message, once: writing and reading walk this list.
template <class Walk, class M>
void fields(Walk& walk, M& m) {
  using T = std::remove_const_t<M>;
  if constexpr (std::same_as<T, Hello>) {
    walk.number(m.version, 0, 1 << 20);
    walk.text(m.job);
    walk.number(m.nodes, 1, kMostNodes);
    walk.number(m.processes, 1, kMostProcesses);
    walk.number(m.node_rank, -1, kMostNodes - 1);
    walk.text(m.host);
  } else if constexpr (std::same_as<T, Welcome>) {
    walk.number(m.timeout_ms, 1, kMostMilliseconds);
  } else if constexpr (std::same_as<T, Start>) {
    walk.number(m.attempt, 0, kMostAttempts);
    walk.number(m.node_rank, 0, kMostNodes - 1);
    walk.number(m.nodes, 1, kMostNodes);
    walk.number(m.first_rank, 0, kMostWorld);
    walk.number(m.world_size, 1, kMostWorld);
    walk.text(m.master_address);
    walk.number(m.master_port, 1, 65535);
  } else if constexpr (std::same_as<T, Failed>) {
    walk.number(m.rank, 0, kMostWorld);
    walk.number(m.code, 1, 255);
    walk.text(m.text);
  } else if constexpr (std::same_as<T, Stop>) {
    walk.flag(m.gentle);
    walk.text(m.text);
  } else if constexpr (std::same_as<T, Signal>) {
    walk.number(m.number, 1, SIGRTMAX);
  } else if constexpr (std::same_as<T, Exit>) {
    walk.number(m.code, 0, 255);
    walk.text(m.text);
  }
}

template <class M>
constexpr std::string_view name_of() {
  if constexpr (std::same_as<M, Hello>) return "hello";
  if constexpr (std::same_as<M, Welcome>) return "welcome";
  if constexpr (std::same_as<M, Start>) return "start";
  if constexpr (std::same_as<M, Failed>) return "failed";
  if constexpr (std::same_as<M, Ended>) return "ended";
  if constexpr (std::same_as<M, Stop>) return "stop";
  if constexpr (std::same_as<M, Signal>) return "signal";
  if constexpr (std::same_as<M, Exit>) return "exit";
  if constexpr (std::same_as<M, Beat>) return "beat";
}

bool is_plain(char c) { return c > ' ' && c < 0x7f && c != '%'; }

struct Writer {
  std::string line;

  void number(int value, int, int) { line += fmt::format(" {}", value); }
  void flag(bool value) { line += value ? " 1" : " 0"; }
  void text(std::string_view value) {
    value = value.substr(0, kMostText);
    line += ' ';
    if (value.empty()) line += '-';
    for (const char c : value) {
      // A single "-" would be read as the empty text.
      if (is_plain(c) && value != "-") {
        line += c;
      } else {
        line += fmt::format("%{:02x}", static_cast<unsigned char>(c));
      }
    }
  }
};

[[noreturn]] void refuse(std::string_view what) {
  throw DataError("launch", fmt::format("expected a message of another launcher, got {}", what));
}

class Reader {
 public:
  explicit Reader(std::string_view rest) : rest_(rest) {}

  std::string_view word() {
    if (done_) refuse("too few fields");
    const size_t space = rest_.find(' ');
    const std::string_view word = rest_.substr(0, space);
    done_ = space == std::string_view::npos;
    if (!done_) rest_.remove_prefix(space + 1);
    if (word.empty()) refuse("an empty field");
    return word;
  }
  void number(int& value, int least, int most) {
    const std::string_view digits = word();
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size() || value < least ||
        value > most)
      refuse("a number out of its range");
  }
  void flag(bool& value) {
    int number_value = 0;
    number(number_value, 0, 1);
    value = number_value == 1;
  }
  void text(std::string& value) {
    const std::string_view coded = word();
    value.clear();
    if (coded == "-") return;
    for (size_t i = 0; i < coded.size(); ++i) {
      if (is_plain(coded[i])) {
        value += coded[i];
      } else {
        value += byte_at(coded, i);
        i += 2;
      }
    }
    if (value.size() > kMostText) refuse("a text that is too long");
  }
  void end() const {
    if (!done_) refuse("too many fields");
  }

 private:
  static char byte_at(std::string_view coded, size_t at) {
    unsigned byte = 0;
    const char* first = coded.data() + at + 1;
    if (coded[at] != '%' || coded.size() - at < 3) refuse("a text with forbidden bytes");
    const auto [end, error] = std::from_chars(first, first + 2, byte, 16);
    if (error != std::errc() || end != first + 2) refuse("a text with forbidden bytes");
    return static_cast<char>(byte);
  }

  std::string_view rest_;
  bool done_ = false;
};

template <size_t I = 0>
Message read(std::string_view name, Reader& reader) {
  if constexpr (I == std::variant_size_v<Message>) {
    refuse("an unknown one");
  } else {
    using M = std::variant_alternative_t<I, Message>;
    if (name != name_of<M>()) return read<I + 1>(name, reader);
    M message;
    fields(reader, message);
    reader.end();
    return message;
  }
}

}  // namespace

std::string encode(const Message& message) {
  return std::visit(
      [](const auto& m) {
        Writer writer{std::string(name_of<std::decay_t<decltype(m)>>())};
        fields(writer, m);
        return writer.line + "\n";
      },
      message);
}

Message decode(std::string_view line) {
  if (line.size() >= kMostLine) refuse("a line that is too long");
  Reader reader(line);
  const std::string_view name = reader.word();
  return read(name, reader);
}

}  // namespace qianli::launch
