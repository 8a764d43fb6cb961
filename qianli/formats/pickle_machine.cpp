#include "qianli/formats/pickle_machine.h"

#include <fmt/core.h>

#include <algorithm>
#include <stdexcept>

#include "qianli/formats/pickle_opcodes.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr int kHighestProtocol = 5;

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

std::string_view PickleMachine::line() {
  const auto rest = bytes_.subspan(place_);
  const auto end = std::ranges::find(rest, std::byte{'\n'});
  if (end == rest.end()) refuse("truncated in a line of text");
  const auto length = static_cast<size_t>(end - rest.begin());
  const auto taken = take(length + 1);
  return {reinterpret_cast<const char*>(taken.data()), length};
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
