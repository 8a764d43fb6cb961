#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <stdexcept>

#include "qianli/formats/gguf.h"
#include "qianli/formats/reject.h"

namespace qianli::formats {
namespace {

constexpr uint64_t kAlignment = 32;

template <class T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void append_type(std::string& bytes, GgufType type) { append(bytes, static_cast<uint32_t>(type)); }
void append_text(std::string& bytes, std::string_view text) {
  append(bytes, uint64_t{text.size()});
  bytes += text;
}

template <class T>
void append_array(std::string& bytes, GgufType type, const std::vector<T>& values) {
  append_type(bytes, GgufType::kArray);
  append_type(bytes, type);
  append(bytes, uint64_t{values.size()});
  for (const T& value : values) append(bytes, value);
}

struct AppendValue {
  std::string& bytes;

  void operator()(int64_t value) const {
    if (value >= 0 && value <= static_cast<int64_t>(UINT32_MAX)) {
      append_type(bytes, GgufType::kU32);
      append(bytes, static_cast<uint32_t>(value));
    } else {
      append_type(bytes, value < 0 ? GgufType::kI64 : GgufType::kU64);
      append(bytes, value);
    }
  }
  void operator()(double value) const {
    append_type(bytes, GgufType::kF32);
    append(bytes, static_cast<float>(value));
  }
  void operator()(bool value) const {
    append_type(bytes, GgufType::kBool);
    append(bytes, static_cast<uint8_t>(value));
  }
  void operator()(const std::string& value) const {
    append_type(bytes, GgufType::kText);
    append_text(bytes, value);
  }
  void operator()(const std::vector<std::string>& values) const {
    append_type(bytes, GgufType::kArray);
    append_type(bytes, GgufType::kText);
    append(bytes, uint64_t{values.size()});
    for (const std::string& value : values) append_text(bytes, value);
  }
  void operator()(const std::vector<int32_t>& values) const {
    append_array(bytes, GgufType::kI32, values);
  }
  void operator()(const std::vector<float>& values) const {
    append_array(bytes, GgufType::kF32, values);
  }
};

// How the caller has the tensor: F32 for Q8_0.
TensorSpec spec_of(const GgufTensorToWrite& tensor, const std::string& source, FileRole role) {
  const auto refuse = [&](const std::string& reason) {
    reject(role, source, fmt::format("tensor {}: {}", shown_name(tensor.name), reason));
  };
  const auto plain = plain_dtype(tensor.type);
  if (!plain && tensor.type != GgmlType::kQ8_0) {
    const auto traits = ggml_traits(static_cast<uint32_t>(tensor.type));
    refuse(fmt::format("type {} is not written", traits ? traits->name : "?"));
  }
  TensorSpec spec{tensor.name, plain.value_or(Dtype::kF32), tensor.shape};
  if (!byte_size(spec.dtype, spec.shape)) refuse("its shape has no valid size");
  const uint32_t block = ggml_traits(static_cast<uint32_t>(tensor.type))->block_size;
  const int64_t row = spec.shape.empty() ? 1 : spec.shape.back();
  if (row % block != 0) {
    refuse(fmt::format("expected rows of a multiple of {} for Q8_0, got {}", block, row));
  }
  return spec;
}

uint64_t stored_bytes(const GgufTensorToWrite& tensor, const TensorSpec& spec) {
  const GgmlTraits traits = *ggml_traits(static_cast<uint32_t>(tensor.type));
  return static_cast<uint64_t>(spec.num_elements()) / traits.block_size * traits.block_bytes;
}

std::string padding(uint64_t size) {
  return std::string((kAlignment - size % kAlignment) % kAlignment, '\0');
}

// Gathers float32 in any pieces and writes them as whole blocks.
class Q8Writer {
 public:
  explicit Q8Writer(OutputFile& file) : file_(file) {}

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const size_t count = std::min(bytes.size(), sizeof values_ - filled_);
      std::memcpy(reinterpret_cast<std::byte*>(values_.data()) + filled_, bytes.data(), count);
      filled_ += count;
      bytes = bytes.subspan(count);
      if (filled_ == sizeof values_) flush();
    }
  }

  void flush() {
    const size_t blocks = filled_ / sizeof(float) / 32;
    quantize_q8_0(std::span(values_).first(32 * blocks), std::span(out_).first(34 * blocks));
    file_.write(out_.data(), 34 * blocks);
    filled_ = 0;
  }

 private:
  OutputFile& file_;
  std::array<float, 32 * 128> values_;
  std::array<std::byte, 34 * 128> out_;
  size_t filled_ = 0;  // bytes
};

// Everything in front of the tensors; fills in how the caller has them.
std::string make_front(const GgufMetadata& metadata, const std::vector<GgufTensorToWrite>& tensors,
                       const std::string& source, FileRole role, std::vector<TensorSpec>& specs) {
  std::set<std::string_view> names, keys;
  std::string front = "GGUF";
  append(front, uint32_t{3});
  append(front, uint64_t{tensors.size()});
  append(front, uint64_t{metadata.size()});
  for (const auto& [key, value] : metadata) {
    if (!keys.insert(key).second) {
      reject(role, source, fmt::format("the key {} stands twice", shown_name(key)));
    }
    append_text(front, key);
    std::visit(AppendValue{front}, value);
  }
  uint64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      reject(role, source, fmt::format("two tensors named {}", shown_name(tensor.name)));
    }
    specs.push_back(spec_of(tensor, source, role));
    append_text(front, tensor.name);
    append(front, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t i = tensor.shape.size(); i-- > 0;) {
      append(front, static_cast<uint64_t>(tensor.shape[i]));
    }
    append(front, static_cast<uint32_t>(tensor.type));
    append(front, offset);
    offset += stored_bytes(tensor, specs.back());
    offset += padding(offset).size();
  }
  return front + padding(front.size());
}

void write_tensor(OutputFile& file, const GgufTensorToWrite& tensor, const TensorSpec& spec,
                  const TensorProducer& produce) {
  const uint64_t stored = stored_bytes(tensor, spec);
  if (file.skip(stored + padding(file.size() + stored).size())) return produce(spec, {});
  uint64_t given = 0;
  const bool blocks = tensor.type == GgmlType::kQ8_0;
  Q8Writer quantized(file);
  produce(spec, [&](std::span<const std::byte> bytes) {
    given += bytes.size();
    if (given > spec.num_bytes()) return;  // told below
    blocks ? quantized.write(bytes) : file.write(bytes.data(), bytes.size());
  });
  if (given != spec.num_bytes()) {
    throw std::logic_error(
        fmt::format("tensor {}: {} bytes announced, {} given", spec.name, spec.num_bytes(), given));
  }
  if (blocks) quantized.flush();
  file.write(padding(file.size()));
}

}  // namespace

void write_gguf(const fs::path& path, const GgufMetadata& metadata,
                const std::vector<GgufTensorToWrite>& tensors, const TensorProducer& produce,
                FileRole role, FileGrowth growth) {
  std::vector<TensorSpec> specs;
  OutputFile file(path, role, std::move(growth));
  file.write(make_front(metadata, tensors, path.string(), role, specs));
  for (size_t i = 0; i < tensors.size(); ++i) write_tensor(file, tensors[i], specs[i], produce);
  file.commit();
}

}  // namespace qianli::formats
