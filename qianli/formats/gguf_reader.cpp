#include <fmt/core.h>

#include <algorithm>

#include "qianli/formats/gguf.h"
#include "qianli/formats/little_endian.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint32_t kMaxDimensions = 8;  // GGML has four
constexpr uint64_t kMaxNameBytes = 65535;

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> file, const std::string& source, FileRole role)
      : file_(file), source_(source), role_(role) {}

  GgufContents read() {
    const auto magic = take(4);
    if (std::string_view(reinterpret_cast<const char*>(magic.data()), 4) != kMagic) {
      refuse("not a GGUF file (it does not begin with GGUF)");
    }
    read_version();
    const uint64_t tensors = count("tensors", 24), entries = count("entries of metadata", 13);
    for (uint64_t i = 0; i < entries; ++i) read_entry();
    for (uint64_t i = 0; i < tensors; ++i) read_tensor_info();
    place_tensors();
    return std::move(contents_);
  }

 private:
  [[noreturn]] void refuse(const std::string& reason) const { reject(role_, source_, reason); }

  uint64_t left() const { return file_.size() - place_; }

  std::span<const std::byte> take(uint64_t bytes) {
    if (bytes > left()) {
      refuse(fmt::format("truncated at byte {}: {} more expected, {} left", place_, bytes, left()));
    }
    const auto taken = file_.subspan(place_, bytes);
    place_ += bytes;
    return taken;
  }

  template <class T>
  T number() {
    return load<T>(take(sizeof(T)).data());
  }

  std::string_view text() {
    const auto bytes = take(number<uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  void read_version() {
    const auto version = number<uint32_t>();
    if (version == 2 || version == 3) return;
    if ((version & 0xffff) == 0) refuse("expected little-endian numbers, got big-endian");
    refuse(fmt::format("expected GGUF version 2 or 3, got {}", version));
  }

  // A number of things of which each takes at least `least` bytes of what is left.
  uint64_t count(const char* what, uint64_t least) {
    const auto number_of = number<uint64_t>();
    if (number_of > left() / least) {
      refuse(fmt::format("{} {} do not fit into the file", number_of, what));
    }
    return number_of;
  }

  std::string name() {
    const std::string_view name = text();
    if (name.size() > kMaxNameBytes) {
      refuse(fmt::format("a name of {} bytes, {} are allowed", name.size(), kMaxNameBytes));
    }
    return std::string(name);
  }

  GgufType type(const std::string& key) {
    const auto type = number<uint32_t>();
    if (type > static_cast<uint32_t>(GgufType::kF64)) {
      refuse(fmt::format("key {}: unknown type {}", shown_name(key), type));
    }
    return static_cast<GgufType>(type);
  }

  void read_entry() {
    const std::string key = name();
    GgufValue value;
    value.type = type(key);
    switch (value.type) {
      case GgufType::kU8:
        value.value = uint64_t{number<uint8_t>()};
        break;
      case GgufType::kU16:
        value.value = uint64_t{number<uint16_t>()};
        break;
      case GgufType::kU32:
        value.value = uint64_t{number<uint32_t>()};
        break;
      case GgufType::kU64:
        value.value = number<uint64_t>();
        break;
      case GgufType::kI8:
        value.value = int64_t{number<int8_t>()};
        break;
      case GgufType::kI16:
        value.value = int64_t{number<int16_t>()};
        break;
      case GgufType::kI32:
        value.value = int64_t{number<int32_t>()};
        break;
      case GgufType::kI64:
        value.value = number<int64_t>();
        break;
      case GgufType::kF32:
        value.value = double{number<float>()};
        break;
      case GgufType::kF64:
        value.value = number<double>();
        break;
      case GgufType::kBool:
        value.value = number<uint8_t>() != 0;
        break;
      case GgufType::kText:
        value.value = text();
        break;
      case GgufType::kArray:
        value.value = array(key);
        break;
    }
    if (!contents_.metadata.emplace(key, value).second) {
      refuse(fmt::format("the key {} stands twice", shown_name(key)));
    }
  }

  GgufValue::Array array(const std::string& key) {
    GgufValue::Array array;
    array.type = type(key);
    array.count = number<uint64_t>();
    if (array.type == GgufType::kArray) {
      refuse(fmt::format("key {}: expected numbers or texts, got an array of arrays",
                         shown_name(key)));
    }
    const uint64_t each = array.type == GgufType::kText ? 8 : gguf_number_bytes(array.type);
    if (array.count > left() / each) {
      refuse(fmt::format("key {}: {} elements do not fit into the file", shown_name(key),
                         array.count));
    }
    const uint64_t begin = place_;
    if (array.type == GgufType::kText) {
      for (uint64_t i = 0; i < array.count; ++i) text();
    } else {
      take(array.count * each);
    }
    array.bytes = file_.subspan(begin, place_ - begin);
    return array;
  }

  void read_tensor_info() {
    GgufTensor tensor;
    tensor.spec.name = name();
    const auto refuse_tensor = [&](const std::string& reason) {
      refuse(fmt::format("tensor {}: {}", shown_name(tensor.spec.name), reason));
    };
    const auto dimensions = number<uint32_t>();
    if (dimensions > kMaxDimensions) {
      refuse_tensor(fmt::format("{} dimensions, {} are allowed", dimensions, kMaxDimensions));
    }
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto size = number<uint64_t>();
      if (size > static_cast<uint64_t>(INT64_MAX)) refuse_tensor("the size of its shape overflows");
      tensor.spec.shape.insert(tensor.spec.shape.begin(), static_cast<int64_t>(size));
    }
    const auto type = number<uint32_t>();
    const auto traits = ggml_traits(type);
    if (!traits) refuse_tensor(fmt::format("unknown type {}", type));
    tensor.type = static_cast<GgmlType>(type);
    tensor.spec.dtype = plain_dtype(tensor.type).value_or(Dtype::kF32);
    if (!byte_size(Dtype::kF64, tensor.spec.shape)) {
      refuse_tensor("the size of its shape overflows");
    }
    const int64_t row = tensor.spec.shape.empty() ? 1 : tensor.spec.shape.back();
    if (row % traits->block_size != 0) {
      refuse_tensor(fmt::format("rows of {} are no whole blocks of {}", row, traits->name));
    }
    offsets_.push_back(number<uint64_t>());
    contents_.tensors.push_back(std::move(tensor));
  }

  uint64_t alignment() const {
    const auto place = contents_.metadata.find("general.alignment");
    if (place == contents_.metadata.end()) return kDefaultAlignment;
    const uint64_t* value = std::get_if<uint64_t>(&place->second.value);
    if (!value || *value == 0 || (*value & (*value - 1)) != 0 || *value > (uint64_t{1} << 30)) {
      refuse("expected a power of two as general.alignment");
    }
    return *value;
  }

  void place_tensors() {
    const uint64_t align = alignment();
    const uint64_t begin = (place_ + align - 1) / align * align;
    const auto data = file_.subspan(std::min<uint64_t>(begin, file_.size()));
    for (size_t i = 0; i < contents_.tensors.size(); ++i) {
      GgufTensor& tensor = contents_.tensors[i];
      const GgmlTraits traits = *ggml_traits(static_cast<uint32_t>(tensor.type));
      const uint64_t bytes = static_cast<uint64_t>(tensor.spec.num_elements()) / traits.block_size *
                             traits.block_bytes;
      const std::string shown = shown_name(tensor.spec.name);
      if (offsets_[i] % align != 0) {
        refuse(fmt::format("tensor {}: its offset {} is no multiple of {}", shown, offsets_[i],
                           align));
      }
      if (offsets_[i] > data.size() || bytes > data.size() - offsets_[i]) {
        refuse(fmt::format("tensor {}: truncated: its {} bytes at {} leave the {} of the file",
                           shown, bytes, offsets_[i], data.size()));
      }
      tensor.bytes = data.subspan(offsets_[i], bytes);
    }
    check_overlap();
  }

  void check_overlap() const {
    std::vector<const GgufTensor*> order;
    for (const GgufTensor& tensor : contents_.tensors) {
      if (!tensor.bytes.empty()) order.push_back(&tensor);
    }
    std::ranges::sort(order, {}, [](const GgufTensor* tensor) { return tensor->bytes.data(); });
    for (size_t i = 1; i < order.size(); ++i) {
      if (order[i]->bytes.data() < order[i - 1]->bytes.data() + order[i - 1]->bytes.size()) {
        refuse(fmt::format("tensor {} overlaps {}", shown_name(order[i]->spec.name),
                           shown_name(order[i - 1]->spec.name)));
      }
    }
  }

  std::span<const std::byte> file_;
  const std::string& source_;
  FileRole role_;
  uint64_t place_ = 0;
  GgufContents contents_;
  std::vector<uint64_t> offsets_;  // of the tensors, in their data
};

}  // namespace

uint64_t gguf_number_bytes(GgufType type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

GgufContents parse_gguf(std::span<const std::byte> file, const std::string& source, FileRole role) {
  return GgufReader(file, source, role).read();
}

}  // namespace qianli::formats
