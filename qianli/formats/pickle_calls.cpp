// The calls in pickles that mean something to us. Whatever is not here stays an Object.
#include <fmt/core.h>

#include <algorithm>
#include <stdexcept>

#include "qianli/formats/little_endian.h"
#include "qianli/formats/pickle_node.h"

namespace qianli::formats {
namespace {

constexpr size_t kMaxDimensions = 64;
constexpr int kMaxNestedCalls = 8;
// A view that repeats its storage (stride 0) may be larger than what is in the file, up to here.
constexpr uint64_t kMaxRepeatedBytes = uint64_t{256} << 20;

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> fronts) {
  return std::ranges::any_of(fronts, [&](std::string_view f) { return text.starts_with(f); });
}

// MindSpore's adapters write torch's calls under module names of their own.
bool is_torch(std::string_view module) {
  return starts_with_any(module, {"torch", "msadapter", "mindtorch", "mindspore"});
}

void require(bool holds, const char* reason) {
  if (!holds) throw std::invalid_argument(reason);
}

int64_t storage_elements(const Storage& storage, Dtype dtype) {
  if (!storage.untyped) return storage.num_elements;
  return storage.num_elements / (bit_size(dtype) / 8);
}

// Checks that every element of the view is within its storage.
Value checked_tensor(StoredTensor tensor) {
  require(tensor.shape.size() == tensor.strides.size(), "sizes and strides differ in number");
  require(tensor.offset >= 0, "a tensor begins before its storage");
  const auto bytes = byte_size(tensor.dtype, tensor.shape);
  require(bytes.has_value(), "the size of a tensor overflows");
  if (*bytes == 0) return Value::tensor(std::move(tensor));
  __extension__ using Wide = __int128;
  Wide last = tensor.offset;
  bool repeats = false;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    require(tensor.strides[i] >= 0, "a tensor has a negative stride");
    last += Wide{tensor.shape[i] - 1} * tensor.strides[i];
    repeats = repeats || tensor.strides[i] == 0;
  }
  const int64_t elements = storage_elements(tensor.storage, tensor.dtype);
  require(last < elements, "a tensor leaves its storage");
  const uint64_t stored =
      static_cast<uint64_t>(elements) * static_cast<uint64_t>(bit_size(tensor.dtype)) / 8;
  require(*bytes <= std::max(stored, kMaxRepeatedBytes), "a tensor repeats its storage too often");
  return Value::tensor(std::move(tensor));
}

// Sizes or strides; a tuple that is longer than any shape is not even copied.
std::optional<std::vector<int64_t>> dimensions(const Value& value) {
  require(!value.items() || value.items()->size() <= kMaxDimensions,
          "a tensor of too many dimensions");
  return value.as_integers();
}

// (storage, offset, size, stride, requires_grad, hooks[, dtype]); `dtype` for untyped storages.
std::optional<Value> rebuild_tensor(const Values& arguments, const Value* dtype) {
  if (arguments.size() < 4) return std::nullopt;
  const Storage* storage = arguments[0].as_storage();
  if (!storage || !storage->dtype) return std::nullopt;
  const auto offset = arguments[1].as_int();
  const auto shape = dimensions(arguments[2]), strides = dimensions(arguments[3]);
  if (!offset || !shape || !strides) return std::nullopt;
  std::optional<Dtype> type = storage->dtype;
  if (dtype) type = dtype_of(*dtype);
  if (!type) return std::nullopt;
  require(dtype || !storage->untyped, "a tensor on an untyped storage does not say its type");
  return checked_tensor({*type, *shape, *strides, *offset, *storage});
}

std::optional<Value> torch_call(std::string_view name, const Values& arguments, int depth,
                                const Charge& charge) {
  if (name == "_rebuild_tensor_v2" || name == "_rebuild_tensor") {
    return rebuild_tensor(arguments, nullptr);
  }
  if (name == "_rebuild_tensor_v3" && arguments.size() >= 7) {
    return rebuild_tensor(arguments, &arguments[6]);
  }
  if (arguments.empty()) return std::nullopt;
  if (name == "_rebuild_parameter" || name == "_rebuild_parameter_with_state") {
    return arguments[0].as_tensor() ? std::optional(arguments[0]) : std::nullopt;
  }
  if (name == "_rebuild_device_tensor_from_numpy" ||
      name == "_rebuild_device_tensor_from_cpu_tensor") {
    const StoredTensor* tensor = arguments[0].as_tensor();
    const bool same = tensor && arguments.size() > 1 && dtype_of(arguments[1]) == tensor->dtype;
    return same ? std::optional(arguments[0]) : std::nullopt;
  }
  // (function, type, arguments, state): a subclass of Tensor.
  if (name == "_rebuild_from_type_v2" && arguments.size() >= 3 && depth < kMaxNestedCalls) {
    const GlobalName* function = arguments[0].as_global();
    const Values* inner = arguments[2].items();
    if (!function || !inner || !is_torch(function->module)) return std::nullopt;
    return torch_call(function->name, *inner, depth + 1, charge);
  }
  if (name == "Size" && arguments[0].items()) {
    charge(arguments[0].items()->size());
    return Value::tuple(*arguments[0].items());
  }
  return std::nullopt;
}

// NumPy's dtype object, for example dtype('f4', False, True) with the state (3, '<', ...).
std::optional<Dtype> numpy_dtype(const Value& value) {
  const Object* object = value.as_object();
  const Values* arguments = object ? object->arguments.items() : nullptr;
  if (!arguments || arguments->empty() || object->callable.name != "dtype") return std::nullopt;
  const std::string* code = (*arguments)[0].as_text();
  const Values* state = object->state.items();
  const std::string* order = state && state->size() > 1 ? (*state)[1].as_text() : nullptr;
  if (!code || (order && *order == ">")) return std::nullopt;
  constexpr std::pair<std::string_view, Dtype> kCodes[] = {
      {"f8", Dtype::kF64}, {"f4", Dtype::kF32}, {"f2", Dtype::kF16}, {"i8", Dtype::kI64},
      {"i4", Dtype::kI32}, {"i2", Dtype::kI16}, {"i1", Dtype::kI8},  {"u8", Dtype::kU64},
      {"u4", Dtype::kU32}, {"u2", Dtype::kU16}, {"u1", Dtype::kU8},  {"b1", Dtype::kBool},
      {"c8", Dtype::kC64}};
  for (const auto& [known, dtype] : kCodes) {
    if (*code == known) return dtype;
  }
  return std::nullopt;
}

std::optional<Value> numpy_scalar(const Values& arguments) {
  if (arguments.size() != 2 || !arguments[1].as_bytes()) return std::nullopt;
  const auto dtype = numpy_dtype(arguments[0]);
  const std::string& bytes = *arguments[1].as_bytes();
  if (!dtype || bytes.size() * 8 != static_cast<size_t>(bit_size(*dtype))) return std::nullopt;
  const auto* place = reinterpret_cast<const std::byte*>(bytes.data());
  switch (*dtype) {
    case Dtype::kF64:
      return Value::real(load<double>(place));
    case Dtype::kF32:
      return Value::real(load<float>(place));
    case Dtype::kI64:
      return Value::integer(load<int64_t>(place));
    case Dtype::kI32:
      return Value::integer(load<int32_t>(place));
    case Dtype::kI16:
      return Value::integer(load<int16_t>(place));
    case Dtype::kI8:
      return Value::integer(load<int8_t>(place));
    case Dtype::kU32:
      return Value::integer(load<uint32_t>(place));
    case Dtype::kU16:
      return Value::integer(load<uint16_t>(place));
    case Dtype::kU8:
      return Value::integer(load<uint8_t>(place));
    case Dtype::kBool:
      return Value::boolean(bytes[0] != 0);
    default:
      return std::nullopt;
  }
}

std::optional<Value> numpy_array(const Value& shape, const Value& type, bool columns_first,
                                 const Value& data, const Charge& charge) {
  const auto dtype = numpy_dtype(type);
  const auto sizes = dimensions(shape);
  const std::string* bytes = data.as_bytes();
  if (!dtype || !sizes || !bytes) return std::nullopt;
  const auto expected = byte_size(*dtype, *sizes);
  require(expected == bytes->size(), "an array of NumPy has more or fewer bytes than its shape");
  charge(bytes->size());
  StoredTensor tensor{*dtype, *sizes, std::vector<int64_t>(sizes->size()), 0, {}};
  int64_t stride = 1;
  for (size_t i = 0; i < sizes->size(); ++i) {
    const size_t axis = columns_first ? i : sizes->size() - 1 - i;
    tensor.strides[axis] = stride;
    stride *= std::max<int64_t>((*sizes)[axis], 1);
  }
  tensor.storage.dtype = *dtype;
  tensor.storage.num_elements = static_cast<int64_t>(bytes->size()) * 8 / bit_size(*dtype);
  tensor.storage.bytes = std::make_shared<const std::string>(*bytes);
  return checked_tensor(std::move(tensor));
}

std::optional<Value> numpy_call(const GlobalName& callable, const Values& arguments,
                                const Charge& charge) {
  if (callable.name == "scalar") return numpy_scalar(arguments);
  // (bytes, dtype, shape, order)
  if (callable.name == "_frombuffer" && arguments.size() == 4) {
    const std::string* order = arguments[3].as_text();
    return numpy_array(arguments[2], arguments[1], order && *order == "F", arguments[0], charge);
  }
  return std::nullopt;
}

// Each character is one byte: how protocol 2 writes bytes.
std::optional<Value> latin1_bytes(const Values& arguments, const Charge& charge) {
  const std::string* text = arguments.size() == 2 ? arguments[0].as_text() : nullptr;
  const std::string* encoding = text ? arguments[1].as_text() : nullptr;
  if (!encoding || (*encoding != "latin1" && *encoding != "latin-1")) return std::nullopt;
  charge(text->size());
  std::string bytes;
  for (size_t i = 0; i < text->size(); ++i) {
    const auto first = static_cast<unsigned char>((*text)[i]);
    if (first < 0x80) {
      bytes += static_cast<char>(first);
    } else if ((first == 0xc2 || first == 0xc3) && i + 1 < text->size()) {
      const auto second = static_cast<unsigned char>((*text)[++i]);
      bytes += static_cast<char>((first & 3) << 6 | (second & 0x3f));
    } else {
      throw std::invalid_argument("a text that should be bytes is not Latin-1");
    }
  }
  return Value::bytes(std::move(bytes));
}

std::optional<Value> python_call(const std::string& name, const Values& arguments,
                                 const Charge& charge) {
  if (name == "collections.OrderedDict" || name == "collections.defaultdict") {
    Entries entries;
    const bool pairs = name == "collections.OrderedDict" && arguments.size() == 1;
    if (pairs && arguments[0].items()) {
      charge(arguments[0].items()->size());
      for (const Value& pair : *arguments[0].items()) {
        if (!pair.items() || pair.items()->size() != 2) return std::nullopt;
        entries.emplace_back((*pair.items())[0], (*pair.items())[1]);
      }
    }
    return Value::dict(std::move(entries));
  }
  const auto is_builtin = [&](std::string_view builtin) {
    return name == fmt::format("builtins.{}", builtin) ||
           name == fmt::format("__builtin__.{}", builtin);
  };
  if (is_builtin("set") || is_builtin("frozenset")) {
    if (arguments.empty()) return Value::set({});
    if (!arguments[0].items()) return std::nullopt;
    charge(arguments[0].items()->size());
    return Value::set(*arguments[0].items());
  }
  if (is_builtin("bytearray")) {
    if (arguments.empty()) return Value::bytes({});
    if (arguments[0].as_bytes()) return arguments[0];
    return latin1_bytes(arguments, charge);
  }
  if (name == "_codecs.encode") return latin1_bytes(arguments, charge);
  return std::nullopt;
}

}  // namespace

Value pickle_call(const GlobalName& callable, const Value& arguments, const Charge& charge) {
  const Values& values = *arguments.items();
  std::optional<Value> known;
  if (is_torch(callable.module)) {
    known = torch_call(callable.name, values, 0, charge);
  } else if (starts_with_any(callable.module, {"numpy.core.", "numpy._core."})) {
    known = numpy_call(callable, values, charge);
  } else {
    known = python_call(callable.text(), values, charge);
  }
  if (known) return *known;
  return Value::object({.callable = callable, .arguments = arguments});
}

std::optional<Value> pickle_build(const Object& object, const Value& state, const Charge& charge) {
  const Values* values = state.items();
  if (!values) return std::nullopt;
  // (version, shape, dtype, is_fortran, bytes)
  if (object.callable.name == "_reconstruct" && object.callable.module.starts_with("numpy") &&
      values->size() == 5) {
    return numpy_array((*values)[1], (*values)[2], (*values)[3].as_bool().value_or(false),
                       (*values)[4], charge);
  }
  if (object.callable.text() == "_io.BytesIO" && !values->empty() && (*values)[0].as_bytes()) {
    charge((*values)[0].as_bytes()->size());
    return (*values)[0];
  }
  return std::nullopt;
}

std::optional<Value> pickle_storage(const Value& identifier) {
  const Values* values = identifier.items();
  if (!values || values->size() < 5) return std::nullopt;
  const std::string* kind = (*values)[0].as_text();
  const GlobalName* type = (*values)[1].as_global();
  const std::string* key = (*values)[2].as_text();
  const auto elements = (*values)[4].as_int();
  if (!kind || *kind != "storage" || !type || !key || !elements) return std::nullopt;
  if (!is_torch(type->module)) return std::nullopt;
  constexpr std::string_view kEnd = "Storage";
  constexpr std::pair<std::string_view, Dtype> kTypes[] = {
      {"Float", Dtype::kF32},     {"Double", Dtype::kF64},       {"Half", Dtype::kF16},
      {"BFloat16", Dtype::kBF16}, {"Long", Dtype::kI64},         {"Int", Dtype::kI32},
      {"Short", Dtype::kI16},     {"Char", Dtype::kI8},          {"Byte", Dtype::kU8},
      {"Bool", Dtype::kBool},     {"ComplexFloat", Dtype::kC64}, {"Untyped", Dtype::kU8}};
  Storage storage{.key = *key, .num_elements = *elements};
  require(*elements >= 0 && *elements <= INT64_MAX / 16, "a storage of impossible size");
  std::string_view name = type->name;
  if (name.ends_with(kEnd)) name.remove_suffix(kEnd.size());
  for (const auto& [known, dtype] : kTypes) {
    if (name == known) storage.dtype = dtype;
  }
  storage.untyped = name == "Untyped";
  return Value::storage(std::move(storage));
}

}  // namespace qianli::formats
