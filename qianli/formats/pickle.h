// Python's pickles, read without being Python: nothing in them is ever executed, imported or looked
// up. A fixed table (pickle_calls.cpp) turns the calls that torch, numpy and the standard library
// write into plain values; every other class or function stays an inert Object that can be shown.
// (docs.python.org/3/library/pickle.html; opcodes of protocols 0 to 5 as in pickletools.py)
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "qianli/base/file.h"
#include "qianli/formats/dtype.h"

namespace qianli::formats {

class Value;
using Values = std::vector<Value>;
using Entries = std::vector<std::pair<Value, Value>>;  // of a dictionary, in its order

// "collections.OrderedDict", never looked up.
struct GlobalName {
  std::string module, name;
  std::string text() const { return module + "." + name; }
};

// Where a tensor's elements lie: outside the pickle under `key`, or, for NumPy's arrays, in
// `bytes`.
struct Storage {
  std::string key;
  std::optional<Dtype> dtype;  // nothing for types that this program does not have
  int64_t num_elements = 0;
  bool untyped = false;  // dtype is U8, tensors on it say theirs
  std::shared_ptr<const std::string> bytes;
};

// A view of a storage. Its elements, offset + sum of index * stride, are within the storage.
struct StoredTensor {
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements, none negative
  int64_t offset = 0;            // in elements
  Storage storage;
};

struct Object;
struct PickleNode;

// A value of a pickle. Copies share what they hold, which nobody changes any more. The tree below a
// value that parse_pickle() returned has bounded depth and size, so that it may be walked
// recursively.
class Value {
 public:
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kFloat,
    kBigInt,  // an integer beyond 64 bits, as its decimal text
    kText,
    kBytes,
    kList,
    kTuple,
    kSet,
    kDict,
    kGlobal,
    kStorage,
    kTensor,
    kObject
  };

  Value() = default;
  static Value boolean(bool value) { return Value(value); }
  static Value integer(int64_t value) { return Value(value); }
  static Value real(double value) { return Value(value); }
  static Value big_integer(std::string decimal);
  static Value text(std::string value);
  static Value bytes(std::string value);
  static Value list(Values values);
  static Value tuple(Values values);
  static Value set(Values values);
  static Value dict(Entries entries);
  static Value global(std::string module, std::string name);
  static Value storage(Storage storage);
  static Value tensor(StoredTensor tensor);
  static Value object(Object object);

  Kind kind() const;
  bool is_none() const { return kind() == Kind::kNone; }
  // Null or nothing where the value is of another kind.
  std::optional<bool> as_bool() const;
  std::optional<int64_t> as_int() const;   // not of a bool
  std::optional<double> as_float() const;  // of an int, too
  const std::string* as_text() const;
  const std::string* as_bytes() const;
  const Values* items() const;     // of a list, tuple or set
  const Entries* entries() const;  // of a dictionary
  const GlobalName* as_global() const;
  const Storage* as_storage() const;
  const StoredTensor* as_tensor() const;
  const Object* as_object() const;
  // The shape of a torch.Size: a tuple or list of integers.
  std::optional<std::vector<int64_t>> as_integers() const;
  // An entry of a dictionary, or an attribute of an object; null where there is none.
  const Value* find(std::string_view key) const;
  // Short text for messages and listings: "{'a': 1, ...}".
  std::string shown(size_t max_characters = 200) const;

 private:
  friend class PickleMachine;
  explicit Value(bool value) : content_(value) {}
  explicit Value(int64_t value) : content_(value) {}
  explicit Value(double value) : content_(value) {}
  explicit Value(std::shared_ptr<PickleNode> node) : content_(std::move(node)) {}
  const PickleNode* node() const;
  template <class T>
  const T* held(Kind kind) const;

  std::variant<std::monostate, bool, int64_t, double, std::shared_ptr<PickleNode>> content_;
};

// What an unknown class or function was given. `argparse.Namespace` is one, with its attributes as
// the dictionary `state`.
struct Object {
  GlobalName callable;
  Value arguments;  // a tuple
  Value state;      // what BUILD handed to it, None where nothing was
  Values elements;  // appended to it, as to a list
  Entries entries;  // set in it, as in a dictionary
};

// What a tensor type is called in a pickle: torch.bfloat16, mindspore's BFloat16, ...; nothing for
// other values.
std::optional<Dtype> dtype_of(const Value& value);

struct PickleLimits {
  uint64_t max_values = uint64_t{1} << 26;  // made, and in the tree written out
  int max_depth = 200;                      // of containers in each other
};

struct PickleResult {
  Value value;
  size_t bytes_read = 0;
};

// Reads one pickle at the front of `bytes`. Throws the error of `role` naming `source`, the place
// and the reason for truncated or malformed pickles, opcodes that no data needs (EXT, INST, OBJ,
// PERSID, out-of-band buffers), values that contain themselves, and whatever exceeds the limits.
PickleResult parse_pickle(std::span<const std::byte> bytes, const std::string& source,
                          FileRole role, PickleLimits limits = {});

// Protocol 2. Dictionaries, lists, tuples, numbers, texts, bytes, dtypes and tensors are read by
// torch.load(weights_only=True); `argparse.Namespace` only by weights_only=False, as Megatron calls
// it. Other objects, sets and globals are refused with the error of `role`. `key_of` names the
// storage of a tensor that is contiguous and begins at its first element.
std::string write_pickle(const Value& value, const std::string& source, FileRole role,
                         const std::function<std::string(const StoredTensor&)>& key_of);

}  // namespace qianli::formats
