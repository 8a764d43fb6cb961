#include "qianli/formats/pickle_machine.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <stdexcept>

#include "qianli/formats/little_endian.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

// Names as in Python's pickletools; the value is the byte.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kFloat = 'F',
  kInt = 'I',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kLong = 'L',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kString = 'S',
  kBinString = 'T',
  kShortBinString = 'U',
  kUnicode = 'V',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kDict = 'd',
  kAppends = 'e',
  kGet = 'g',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kList = 'l',
  kPut = 'p',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kBinFloat = 'G',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kEmptyDict = '}',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kNewObjEx = 0x92,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

constexpr int kHighestProtocol = 5;
constexpr size_t kMaxLongBytes = 256;

// Decimal text of a little-endian two's complement number.
std::string decimal_text(std::span<const std::byte> bytes) {
  std::vector<uint32_t> digits;  // base 10^9, least first
  const bool negative = (bytes.back() & std::byte{0x80}) != std::byte{0};
  unsigned borrow = negative ? 1 : 0;
  std::vector<uint8_t> magnitude;
  for (const std::byte b : bytes) {
    const unsigned value =
        negative ? static_cast<unsigned>(~b & std::byte{0xff}) + borrow : static_cast<unsigned>(b);
    borrow = value >> 8;
    magnitude.push_back(static_cast<uint8_t>(value));
  }
  for (size_t i = magnitude.size(); i-- > 0;) {
    uint64_t carry = magnitude[i];
    for (uint32_t& digit : digits) {
      const uint64_t value = uint64_t{digit} * 256 + carry;
      digit = static_cast<uint32_t>(value % 1'000'000'000);
      carry = value / 1'000'000'000;
    }
    if (carry > 0) digits.push_back(static_cast<uint32_t>(carry));
  }
  std::string text = negative ? "-" : "";
  for (size_t i = digits.size(); i-- > 0;) {
    text += i + 1 == digits.size() ? fmt::format("{}", digits[i]) : fmt::format("{:09}", digits[i]);
  }
  return text;
}

}  // namespace

PickleMachine::PickleMachine(std::span<const std::byte> bytes, const std::string& source,
                             FileRole role, PickleLimits limits)
    : bytes_(bytes), source_(source), role_(role), limits_(limits) {}

PickleMachine::~PickleMachine() { drop_all(true); }

void PickleMachine::refuse(const std::string& reason) const {
  reject(role_, source_, fmt::format("pickle, byte {}: {}", opcode_place_, reason));
}

std::span<const std::byte> PickleMachine::take(uint64_t count) {
  if (count > bytes_.size() - place_) {
    refuse(
        fmt::format("truncated: {} more bytes expected, {} left", count, bytes_.size() - place_));
  }
  const auto taken = bytes_.subspan(place_, count);
  place_ += count;
  return taken;
}

std::string PickleMachine::take_text(uint64_t count) {
  const auto taken = take(count);
  return {reinterpret_cast<const char*>(taken.data()), taken.size()};
}

template <class T>
T PickleMachine::number() {
  return load<T>(take(sizeof(T)).data());
}

std::string_view PickleMachine::line() {
  const auto rest = bytes_.subspan(place_);
  const auto end = std::ranges::find(rest, std::byte{'\n'});
  if (end == rest.end()) refuse("truncated in a line of text");
  const auto length = static_cast<size_t>(end - rest.begin());
  const auto taken = take(length + 1);
  return {reinterpret_cast<const char*>(taken.data()), length};
}

int64_t PickleMachine::decimal(std::string_view text) const {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) {
    refuse(fmt::format("expected a whole number of 64 bits, got {}", shown_name(text)));
  }
  return value;
}

void PickleMachine::push(Value value) {
  if (++values_made_ > limits_.max_values) refuse("too many values");
  stack_.push_back(std::move(value));
}

void PickleMachine::push_node(Value value) {
  holders_.push_back(std::get<Node>(value.content_));
  push(std::move(value));
}

Value& PickleMachine::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) refuse("nothing on the stack");
  return stack_.back();
}

Value PickleMachine::pop() {
  Value value = std::move(top());
  stack_.pop_back();
  return value;
}

Values PickleMachine::pop_to_mark() {
  if (marks_.empty()) refuse("no mark on the stack");
  const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  Values values(std::make_move_iterator(first), std::make_move_iterator(stack_.end()));
  stack_.erase(first, stack_.end());
  marks_.pop_back();
  return values;
}

void PickleMachine::charge(uint64_t amount) {
  // Copies made by calls: a call costs one byte in the pickle, so it could copy without end.
  const uint64_t most = std::min<uint64_t>(bytes_.size(), uint64_t{1} << 26) * 64 + (1 << 20);
  if (amount > most - charged_) refuse("its calls copy too much");
  charged_ += amount;
}

PickleNode& PickleMachine::mutable_top() {
  Node* node = std::get_if<Node>(&top().content_);
  if (!node) refuse(fmt::format("expected a container, got {}", top().shown()));
  return **node;
}

PickleResult PickleMachine::run() {
  for (;;) {
    opcode_place_ = place_;
    const auto opcode = number<uint8_t>();
    if (opcode == kStop) break;
    if (run_number(opcode) || run_text(opcode) || run_container(opcode) || run_memo(opcode) ||
        run_call(opcode)) {
      continue;
    }
    refuse(fmt::format("opcode 0x{:02x} is not allowed in data", opcode));
  }
  if (!marks_.empty() || stack_.size() != 1) refuse("ends with more or less than one value");
  PickleResult result{pop(), place_};
  check(result.value);
  return result;
}

bool PickleMachine::run_number(uint8_t opcode) {
  switch (opcode) {
    case kNone:
      push({});
      return true;
    case kNewTrue:
      push(Value::boolean(true));
      return true;
    case kNewFalse:
      push(Value::boolean(false));
      return true;
    case kBinInt:
      push(Value::integer(number<int32_t>()));
      return true;
    case kBinInt1:
      push(Value::integer(number<uint8_t>()));
      return true;
    case kBinInt2:
      push(Value::integer(number<uint16_t>()));
      return true;
    case kLong1:
      push_long(take(number<uint8_t>()));
      return true;
    case kLong4:
      push_long(take(number<uint32_t>()));
      return true;
    case kInt: {
      const std::string_view text = line();
      if (text == "00" || text == "01") {
        push(Value::boolean(text == "01"));
      } else {
        push(Value::integer(decimal(text)));
      }
      return true;
    }
    case kLong: {
      std::string_view text = line();
      if (text.ends_with('L')) text.remove_suffix(1);
      push(Value::integer(decimal(text)));
      return true;
    }
    case kFloat: {
      const std::string text(line());
      char* end = nullptr;
      const double value = std::strtod(text.c_str(), &end);
      if (text.empty() || *end != '\0') refuse("expected a number, got " + shown_name(text));
      push(Value::real(value));
      return true;
    }
    case kBinFloat: {
      uint64_t bits = 0;  // the one number with its first byte first
      for (const std::byte b : take(8)) bits = bits << 8 | static_cast<uint64_t>(b);
      push(Value::real(std::bit_cast<double>(bits)));
      return true;
    }
    default:
      return false;
  }
}

void PickleMachine::push_long(std::span<const std::byte> bytes) {
  if (bytes.size() <= 8) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes.size(); ++i) value |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    const size_t unused = 64 - 8 * bytes.size();
    if (unused < 64) value = static_cast<uint64_t>(static_cast<int64_t>(value << unused) >> unused);
    return push(Value::integer(static_cast<int64_t>(value)));
  }
  if (bytes.size() > kMaxLongBytes) refuse("an integer of more than 2048 bits");
  push(Value::big_integer(decimal_text(bytes)));
}

bool PickleMachine::run_text(uint8_t opcode) {
  switch (opcode) {
    case kShortBinUnicode:
      push(Value::text(take_text(number<uint8_t>())));
      return true;
    case kBinUnicode:
      push(Value::text(take_text(number<uint32_t>())));
      return true;
    case kBinUnicode8:
      push(Value::text(take_text(number<uint64_t>())));
      return true;
    // Python 2's str: text where it is used, and Megatron's old files use it as such.
    case kShortBinString:
      push(Value::text(take_text(number<uint8_t>())));
      return true;
    case kBinString:
      push(Value::text(take_text(number<uint32_t>())));
      return true;
    case kShortBinBytes:
      push(Value::bytes(take_text(number<uint8_t>())));
      return true;
    case kBinBytes:
      push(Value::bytes(take_text(number<uint32_t>())));
      return true;
    case kBinBytes8:
    case kByteArray8:
      push(Value::bytes(take_text(number<uint64_t>())));
      return true;
    case kString:
      push_quoted_text();
      return true;
    case kUnicode:
      push_escaped_text();
      return true;
    default:
      return false;
  }
}

void PickleMachine::push_quoted_text() {
  std::string_view text = line();
  const bool quoted = text.size() >= 2 && text.front() == text.back() &&
                      (text.front() == '\'' || text.front() == '"');
  if (!quoted) refuse("expected a text in quotes");
  text = text.substr(1, text.size() - 2);
  if (text.find('\\') != text.npos) refuse("a text with escapes, which protocol 0 alone writes");
  push(Value::text(std::string(text)));
}

void PickleMachine::push_escaped_text() {
  const std::string_view text = line();
  if (text.find('\\') != text.npos) refuse("a text with escapes, which protocol 0 alone writes");
  push(Value::text(std::string(text)));
}

bool PickleMachine::run_container(uint8_t opcode) {
  switch (opcode) {
    case kMark:
      marks_.push_back(stack_.size());
      return true;
    case kPop:
      if (!marks_.empty() && marks_.back() == stack_.size()) {
        marks_.pop_back();
      } else {
        pop();
      }
      return true;
    case kPopMark:
      pop_to_mark();
      return true;
    case kDup:
      push(top());
      return true;
    case kEmptyList:
      push_node(Value::list({}));
      return true;
    case kEmptyTuple:
      push_node(Value::tuple({}));
      return true;
    case kEmptyDict:
      push_node(Value::dict({}));
      return true;
    case kEmptySet:
      push_node(Value::set({}));
      return true;
    case kList:
      push_node(Value::list(pop_to_mark()));
      return true;
    case kTuple:
      push_node(Value::tuple(pop_to_mark()));
      return true;
    case kFrozenSet:
      push_node(Value::set(pop_to_mark()));
      return true;
    case kTuple1:
    case kTuple2:
    case kTuple3: {
      Values values(opcode - kTuple1 + 1u);
      for (size_t i = values.size(); i-- > 0;) values[i] = pop();
      push_node(Value::tuple(std::move(values)));
      return true;
    }
    case kDict: {
      Values values = pop_to_mark();
      push_node(Value::dict({}));
      set_items(std::move(values));
      return true;
    }
    case kAppend:
      append({pop()});
      return true;
    case kAppends:
    case kAddItems:
      append(pop_to_mark());
      return true;
    case kSetItem: {
      Value value = pop(), key = pop();
      set_items({std::move(key), std::move(value)});
      return true;
    }
    case kSetItems:
      set_items(pop_to_mark());
      return true;
    default:
      return false;
  }
}

void PickleMachine::append(Values values) {
  PickleNode& node = mutable_top();
  Values* into = nullptr;
  if (node.kind == Value::Kind::kList || node.kind == Value::Kind::kSet) {
    into = &std::get<Values>(node.content);
  } else if (node.kind == Value::Kind::kObject) {
    into = &std::get<Object>(node.content).elements;
  }
  if (!into) refuse("values are appended to what is no list");
  into->insert(into->end(), std::make_move_iterator(values.begin()),
               std::make_move_iterator(values.end()));
}

void PickleMachine::set_items(Values values) {
  if (values.size() % 2 != 0) refuse("a key without a value");
  PickleNode& node = mutable_top();
  Entries* into = nullptr;
  if (node.kind == Value::Kind::kDict) into = &std::get<Entries>(node.content);
  if (node.kind == Value::Kind::kObject) into = &std::get<Object>(node.content).entries;
  if (!into) refuse("items are set in what is no dictionary");
  for (size_t i = 0; i < values.size(); i += 2) {
    into->emplace_back(std::move(values[i]), std::move(values[i + 1]));
  }
}

bool PickleMachine::run_memo(uint8_t opcode) {
  switch (opcode) {
    case kPut:
    case kGet: {
      const int64_t index = decimal(line());
      if (index < 0 || index > UINT32_MAX) refuse("a memo index out of range");
      opcode == kPut ? remember(static_cast<uint32_t>(index))
                     : recall(static_cast<uint32_t>(index));
      return true;
    }
    case kBinPut:
      remember(number<uint8_t>());
      return true;
    case kLongBinPut:
      remember(number<uint32_t>());
      return true;
    case kMemoize:
      remember(static_cast<uint32_t>(memo_.size()));
      return true;
    case kBinGet:
      recall(number<uint8_t>());
      return true;
    case kLongBinGet:
      recall(number<uint32_t>());
      return true;
    default:
      return false;
  }
}

void PickleMachine::remember(uint32_t index) {
  memo_.insert_or_assign(index, top());
  if (memo_.size() > limits_.max_values) refuse("too many values");
}

void PickleMachine::recall(uint32_t index) {
  const auto place = memo_.find(index);
  if (place == memo_.end()) refuse(fmt::format("memo {} is asked for and was not set", index));
  push(place->second);
}

bool PickleMachine::run_call(uint8_t opcode) {
  switch (opcode) {
    case kProto:
      if (const int protocol = number<uint8_t>(); protocol > kHighestProtocol) {
        refuse(fmt::format("expected protocol 5 at most, got {}", protocol));
      }
      return true;
    case kFrame:
      number<uint64_t>();
      return true;
    case kGlobal: {
      const std::string module(line()), name(line());
      push(Value::global(module, name));
      return true;
    }
    case kStackGlobal: {
      const Value name = pop(), module = pop();
      if (!name.as_text() || !module.as_text()) refuse("the name of a class is no text");
      push(Value::global(*module.as_text(), *name.as_text()));
      return true;
    }
    case kReduce:
    case kNewObj:
      call(false);
      return true;
    case kNewObjEx:
      call(true);
      return true;
    case kBuild:
      build();
      return true;
    case kBinPersId: {
      const Value identifier = pop();
      try {
        auto storage = pickle_storage(identifier);
        if (!storage) refuse("a reference to " + identifier.shown() + ", expected a storage");
        push_node(std::move(*storage));
      } catch (const std::invalid_argument& error) {
        refuse(error.what());
      }
      return true;
    }
    default:
      return false;
  }
}

void PickleMachine::call(bool keyword_arguments) {
  Value keywords;
  if (keyword_arguments) keywords = pop();
  Value arguments = pop();
  const Value callable = pop();
  if (arguments.kind() != Value::Kind::kTuple) refuse("arguments are no tuple");
  GlobalName name{"", callable.shown()};
  if (callable.as_global()) name = *callable.as_global();
  if (keyword_arguments) {
    return push_node(Value::object({.callable = name, .arguments = arguments, .state = keywords}));
  }
  // What is called is always a name; a call of something else stays a riddle for the reader.
  if (!callable.as_global()) {
    return push_node(Value::object({.callable = name, .arguments = arguments}));
  }
  try {
    Value made = pickle_call(name, arguments, [this](uint64_t amount) { charge(amount); });
    std::holds_alternative<Node>(made.content_) ? push_node(std::move(made))
                                                : push(std::move(made));
  } catch (const std::invalid_argument& error) {
    refuse(fmt::format("{}: {}", name.text(), error.what()));
  }
}

void PickleMachine::build() {
  const Value state = pop();
  PickleNode& node = mutable_top();
  if (node.kind == Value::Kind::kDict || node.kind == Value::Kind::kTensor) return;  // attributes
  if (node.kind != Value::Kind::kObject) refuse("a state is given to what is no object");
  Object& object = std::get<Object>(node.content);
  try {
    const auto built = pickle_build(object, state, [this](uint64_t amount) { charge(amount); });
    if (!built) {
      object.state = state;
      return;
    }
    // In place, because the memo may hold the object already.
    const Node& other = std::get<Node>(built->content_);
    auto content = other->content;
    node.kind = other->kind;
    node.content = std::move(content);
  } catch (const std::invalid_argument& error) {
    refuse(fmt::format("{}: {}", object.callable.text(), error.what()));
  }
}

}  // namespace qianli::formats
