// From the tensors of one checkpoint to those of another, part by part.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/recent_rows.h"
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
  // Likewise, of what is there and is `ignored`.
  const std::vector<std::string>& left_out() const { return left_out_; }
  // The element type that parameter `index` is stored in; its first part's where they differ.
  formats::Dtype dtype(size_t index) const;
  // The type to write it in where no other is asked for.
  formats::Dtype natural_dtype(size_t index) const;

  // The tensor's bytes where the source holds them just as they are wanted; they live as long as
  // the reader.
  std::optional<std::span<const std::byte>> in_place(const ForeignTensor& tensor,
                                                     formats::Dtype dtype) const;

  // Writes elements [first, first + n) of `tensor`, n of them as `out` has room for, in `dtype`.
  // The bounds are multiples of row_elements(tensor), or the end. Elements outside all parts are
  // not touched. May be called by several threads at once.
  void assemble(const ForeignTensor& tensor, formats::Dtype dtype, int64_t first,
                std::span<std::byte> out) const;
  // The whole of it.
  void assemble(const ForeignTensor& tensor, formats::Dtype dtype, std::span<std::byte> out) const {
    assemble(tensor, dtype, 0, out);
  }

  // Names of copies (see ForeignTensor) that are not what they repeat, bit for bit.
  std::vector<std::string> differing_copies() const;

 private:
  struct Piece {  // of a parameter, in a file
    Part part;
    size_t tensor;  // index into tensors_
  };
  void check_stored(const ForeignTensor& tensor, const formats::TensorSpec& found) const;
  bool is_faithful(size_t copy) const;
  void copy(const Part& to, const Piece& from, int64_t first, formats::Dtype dtype,
            std::span<std::byte> out) const;
  void copy_rows(const Part& to, const Piece& from, int64_t row, int64_t rows, int64_t first,
                 formats::Dtype dtype, std::span<std::byte> out) const;
  const formats::TensorSource& file_of(size_t tensor) const {
    return *files_[tensors_[tensor].file];
  }

  const Table& table_;
  std::vector<ForeignTensor> tensors_;
  std::vector<std::shared_ptr<const formats::TensorSource>> files_;
  std::vector<const formats::TensorSpec*> specs_;  // per tensor
  std::vector<std::vector<Piece>> pieces_;         // per parameter, by first row
  std::vector<std::string> unused_, left_out_;
  std::string what_;
  mutable RecentRows recent_;
};

// Elements of a row of the matrices that the tensor's parts see in it; all of the tensor's where
// they differ, begin within one, or are none.
int64_t row_elements(const ForeignTensor& tensor);

}  // namespace qianli::convert
