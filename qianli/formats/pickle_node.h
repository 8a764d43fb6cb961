// What stands behind a Value. Only the machine changes it, before anybody else sees it.
#pragma once

#include "qianli/formats/pickle.h"

namespace qianli::formats {

struct PickleNode {
  Value::Kind kind;
  // kText, kBytes, kBigInt: std::string; kList, kTuple, kSet: Values; kDict: Entries.
  std::variant<std::string, Values, Entries, GlobalName, Storage, StoredTensor, Object> content;
  // Of the tree below: filled in when the pickle is complete.
  int depth = 0;
  uint64_t size = 0;
};

// Told of the elements or bytes that a call copies, and throws where they become too many.
using Charge = std::function<void(uint64_t)>;

// What REDUCE and NEWOBJ make. Throws std::invalid_argument with the reason where torch could not
// make a tensor of it either.
Value pickle_call(const GlobalName& callable, const Value& arguments, const Charge& charge);
// What an object becomes that is handed a state; nothing where it stays an object and keeps it.
std::optional<Value> pickle_build(const Object& object, const Value& state, const Charge& charge);
// A persistent identifier: a storage, or nothing where it has another form.
std::optional<Value> pickle_storage(const Value& identifier);

}  // namespace qianli::formats
