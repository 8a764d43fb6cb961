// The stack machine that a pickle is a program for.
#pragma once

#include <unordered_map>

#include "qianli/formats/little_endian.h"
#include "qianli/formats/pickle_node.h"

namespace qianli::formats {

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> bytes, const std::string& source, FileRole role,
                PickleLimits limits);
  ~PickleMachine();

  PickleResult run();

 private:
  using Node = std::shared_ptr<PickleNode>;
  [[noreturn]] void refuse(const std::string& reason) const;

  // The bytes of the pickle.
  std::span<const std::byte> take(uint64_t count);
  std::string take_text(uint64_t count);
  template <class T>
  T number() {
    return load<T>(take(sizeof(T)).data());
  }
  std::string_view line();
  int64_t decimal(std::string_view text) const;

  // The stack. Values below the last mark cannot be popped.
  void push(Value value);
  void push_node(Value value);  // one that holds others
  Value pop();
  Value& top();
  Values pop_to_mark();

  // Opcodes, by family; false where it is of another one.
  bool run_number(uint8_t opcode);
  bool run_text(uint8_t opcode);
  bool run_container(uint8_t opcode);
  bool run_memo(uint8_t opcode);
  bool run_call(uint8_t opcode);

  void push_long(std::span<const std::byte> two_complement);
  void push_quoted_text();
  void push_escaped_text();
  void append(Values values);
  void set_items(Values keys_and_values);
  void call(bool keyword_arguments);
  void build();
  void remember(uint32_t index);
  void recall(uint32_t index);
  void charge(uint64_t amount);
  PickleNode& mutable_top();

  // Checks the finished tree: no cycles, bounded depth and size, no key twice.
  void check(const Value& root);
  void check_keys(const PickleNode& node) const;
  // Takes everything apart that no finished value holds, without recursion.
  void drop_all(bool keep_checked);

  std::span<const std::byte> bytes_;
  size_t place_ = 0;
  size_t opcode_place_ = 0;
  const std::string& source_;
  FileRole role_;
  PickleLimits limits_;
  Values stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::vector<Node> holders_;  // every node that may hold others
  uint64_t values_made_ = 0;
  uint64_t charged_ = 0;
};

}  // namespace qianli::formats
