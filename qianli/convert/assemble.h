// From the tensors of one checkpoint to those of another, part by part.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/formats/tensor_source.h"

namespace qianli::convert {

// A checkpoint that is read: its files and where in them every parameter lies.
class ParameterReader {
 public:
  // `files[i]` holds the tensors with file == i. Throws CheckpointError where a tensor is missing,
  // has another shape than it should or is not of F64, F32, F16 or BF16 numbers, or where
  // parameters are not covered exactly once. Tensors of the files that nothing names and that are
  // not `ignored` are reported by unused().
  ParameterReader(const Table& table, std::vector<ForeignTensor> tensors,
                  std::vector<std::shared_ptr<const formats::TensorSource>> files, std::string what,
                  const std::function<bool(const std::string&)>& ignored = {});

  // "file: name" of what is in the files and belongs to no parameter.
  const std::vector<std::string>& unused() const { return unused_; }
  // The element type that parameter `index` is stored in; its first part's where they differ.
  formats::Dtype dtype(size_t index) const;
  // It is stored in fewer bits (blocks with scales) and turned into numbers as it is read.
  bool is_quantized(size_t index) const;

  // The tensor's bytes where the source holds them just as they are wanted; they live as long as
  // the reader.
  std::optional<std::span<const std::byte>> in_place(const ForeignTensor& tensor,
                                                     formats::Dtype dtype) const;

  // Writes every part of `tensor` into `out`, which has its shape in elements of `dtype`. Elements
  // outside all parts are not touched. May be called by several threads at once.
  void assemble(const ForeignTensor& tensor, formats::Dtype dtype, std::span<std::byte> out) const;

 private:
  void check_stored(const ForeignTensor& tensor, const formats::TensorSpec& found) const;
  struct Piece {  // of a parameter, in a file
    Part part;
    size_t tensor;  // index into tensors_
  };
  struct Bytes {  // a tensor's elements, in place or read
    std::span<const std::byte> data;
    std::shared_ptr<const std::vector<std::byte>> owner;
  };
  Bytes bytes_of(size_t tensor) const;
  void copy(const Part& to, const Piece& from, formats::Dtype dtype,
            std::span<std::byte> out) const;

  const Table& table_;
  std::vector<ForeignTensor> tensors_;
  std::vector<std::shared_ptr<const formats::TensorSource>> files_;
  std::vector<const formats::TensorSpec*> specs_;  // per tensor
  std::vector<std::vector<Piece>> pieces_;         // per parameter, by first row
  std::vector<std::string> unused_;
  std::string what_;
  // The tensors read last: the parts of one are asked for one after the other.
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<size_t, std::shared_ptr<const std::vector<std::byte>>>> recent_;
};

}  // namespace qianli::convert
