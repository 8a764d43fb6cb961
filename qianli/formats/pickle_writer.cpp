#include <fmt/core.h>

#include "qianli/formats/pickle.h"
#include "qianli/formats/reject.h"
#include "qianli/formats/torch_types.h"

namespace qianli::formats {
namespace {

class PickleWriter {
 public:
  PickleWriter(const std::string& source, FileRole role,
               const std::function<std::string(const StoredTensor&)>& key_of)
      : source_(source), role_(role), key_of_(key_of) {}

  std::string write(const Value& value) {
    bytes_ = "\x80\x02";
    put(value);
    bytes_ += '.';
    return std::move(bytes_);
  }

 private:
  [[noreturn]] void refuse(const std::string& reason) const { reject(role_, source_, reason); }

  template <class T>
  void raw(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }

  void put_text(std::string_view text) {
    if (text.size() > UINT32_MAX) refuse("a text is too long for a pickle");
    bytes_ += 'X';
    raw(static_cast<uint32_t>(text.size()));
    bytes_ += text;
  }

  void put_global(std::string_view module, std::string_view name) {
    bytes_ += fmt::format("c{}\n{}\n", module, name);
  }

  void put_int(int64_t value) {
    if (value >= INT32_MIN && value <= INT32_MAX) {
      bytes_ += 'J';
      raw(static_cast<int32_t>(value));
    } else {
      bytes_ += "\x8a\x08";
      raw(value);
    }
  }

  void put_float(double value) {
    bytes_ += 'G';
    const auto bits = std::bit_cast<uint64_t>(value);
    for (int shift = 56; shift >= 0; shift -= 8) bytes_ += static_cast<char>(bits >> shift);
  }

  // As protocol 2 does it: a text of which each character is one byte.
  void put_bytes(std::string_view bytes) {
    std::string text;
    for (const char c : bytes) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x80) {
        text += c;
      } else {
        text += static_cast<char>(0xc0 | byte >> 6);
        text += static_cast<char>(0x80 | (byte & 0x3f));
      }
    }
    put_global("_codecs", "encode");
    put_text(text);
    put_text("latin1");
    bytes_ += "\x86R";
  }

  void put_integers(std::span<const int64_t> values) {
    bytes_ += '(';
    for (const int64_t value : values) put_int(value);
    bytes_ += 't';
  }

  void put_tensor(const StoredTensor& tensor) {
    const TorchType type = torch_type(tensor.dtype);
    if (type.name.empty()) {
      refuse(fmt::format("torch has no tensors of type {}", dtype_name(tensor.dtype)));
    }
    const bool untyped = type.storage.empty();
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    std::vector<int64_t> strides(tensor.shape.size());
    int64_t stride = 1;
    for (size_t axis = strides.size(); axis-- > 0;) {
      strides[axis] = stride;
      stride *= std::max<int64_t>(tensor.shape[axis], 1);
    }
    put_global("torch._utils", untyped ? "_rebuild_tensor_v3" : "_rebuild_tensor_v2");
    bytes_ += "((";
    put_text("storage");
    if (untyped) {
      put_global("torch.storage", "UntypedStorage");
    } else {
      put_global("torch", type.storage);
    }
    put_text(key_of_(tensor));
    put_text("cpu");
    put_int(untyped ? elements * (bit_size(tensor.dtype) / 8) : elements);
    bytes_ += "tQ";
    put_int(0);
    put_integers(tensor.shape);
    put_integers(strides);
    bytes_ += '\x89';
    put_global("collections", "OrderedDict");
    bytes_ += ")R";
    if (untyped) put_global("torch", type.name);
    bytes_ += "tR";
  }

  void put_items(const Values& values) {
    for (const Value& value : values) put(value);
  }

  void put_dict(const Entries& entries) {
    bytes_ += "}(";
    for (const auto& [key, value] : entries) {
      put(key);
      put(value);
    }
    bytes_ += 'u';
  }

  void put_object(const Value& value) {
    const Object& object = *value.as_object();
    const bool plain = object.elements.empty() && object.entries.empty() && object.state.entries();
    if (object.callable.text() != "argparse.Namespace" || !plain) {
      refuse(fmt::format("objects of {} are not written", shown_name(object.callable.text())));
    }
    put_global("argparse", "Namespace");
    bytes_ += ")\x81";
    put_dict(*object.state.entries());
    bytes_ += 'b';
  }

  void put(const Value& value) {
    using Kind = Value::Kind;
    switch (value.kind()) {
      case Kind::kNone:
        bytes_ += 'N';
        return;
      case Kind::kBool:
        bytes_ += *value.as_bool() ? '\x88' : '\x89';
        return;
      case Kind::kInt:
        return put_int(*value.as_int());
      case Kind::kFloat:
        return put_float(*value.as_float());
      case Kind::kText:
        return put_text(*value.as_text());
      case Kind::kBytes:
        return put_bytes(*value.as_bytes());
      case Kind::kList:
        bytes_ += "](";
        put_items(*value.items());
        bytes_ += 'e';
        return;
      case Kind::kTuple:
        bytes_ += '(';
        put_items(*value.items());
        bytes_ += 't';
        return;
      case Kind::kDict:
        return put_dict(*value.entries());
      case Kind::kTensor:
        return put_tensor(*value.as_tensor());
      case Kind::kObject:
        return put_object(value);
      case Kind::kGlobal:
        if (const auto dtype = dtype_of(value); dtype && !torch_type(*dtype).name.empty()) {
          return put_global("torch", torch_type(*dtype).name);
        }
        [[fallthrough]];
      default:
        refuse("values like this are not written: " + value.shown());
    }
  }

  const std::string& source_;
  FileRole role_;
  const std::function<std::string(const StoredTensor&)>& key_of_;
  std::string bytes_;
};

}  // namespace

std::string write_pickle(const Value& value, const std::string& source, FileRole role,
                         const std::function<std::string(const StoredTensor&)>& key_of) {
  return PickleWriter(source, role, key_of).write(value);
}

}  // namespace qianli::formats
