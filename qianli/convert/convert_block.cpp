#include "qianli/convert/convert_block.h"

#include <algorithm>
#include <span>
#include <vector>

#include "qianli/formats/number_formats.h"

namespace qianli::convert {
namespace {

constexpr int64_t kTileElements = int64_t{1} << 16;
constexpr int64_t kTileEdge = int64_t{1} << 8;  // where one side is transposed

size_t element_bytes(formats::Dtype dtype) {
  return static_cast<size_t>(formats::bit_size(dtype)) / 8;
}

struct Tile {
  int64_t row, column, rows, columns;
};

int64_t first_of(const Strided& matrix, const Tile& tile) {
  return matrix.first + tile.row * matrix.row_step + tile.column * matrix.column_step;
}

// The tile's elements lie one behind the other.
bool is_packed(const Strided& matrix, const Tile& tile) {
  return (matrix.column_step == 1 || tile.columns == 1) &&
         (matrix.row_step == tile.columns || tile.rows == 1);
}

class Converter {
 public:
  Converter(formats::Dtype from_dtype, const std::byte* from, const Strided& source,
            formats::Dtype to_dtype, std::byte* to, const Strided& target)
      : from_dtype_(from_dtype),
        to_dtype_(to_dtype),
        from_(from),
        to_(to),
        source_(source),
        target_(target) {}

  void convert(const Tile& tile) {
    const Strided packed{0, tile.columns, 1};
    const auto count = static_cast<size_t>(tile.rows * tile.columns);
    const size_t from_width = element_bytes(from_dtype_), to_width = element_bytes(to_dtype_);
    const int64_t here = first_of(source_, tile), there = first_of(target_, tile);
    const std::byte* in = from_ + here * static_cast<int64_t>(from_width);
    if (!is_packed(source_, tile)) {
      gathered_.resize(count * from_width);
      strided_copy(tile.rows, tile.columns, from_width, from_,
                   {here, source_.row_step, source_.column_step}, gathered_.data(), packed);
      in = gathered_.data();
    }
    const bool direct = is_packed(target_, tile);
    if (!direct) converted_.resize(count * to_width);
    std::byte* out = direct ? to_ + there * static_cast<int64_t>(to_width) : converted_.data();
    formats::convert_numbers(from_dtype_, {in, count * from_width}, to_dtype_,
                             {out, count * to_width});
    if (direct) return;
    strided_copy(tile.rows, tile.columns, to_width, out, packed, to_,
                 {there, target_.row_step, target_.column_step});
  }

 private:
  formats::Dtype from_dtype_, to_dtype_;
  const std::byte* from_;
  std::byte* to_;
  const Strided &source_, &target_;
  std::vector<std::byte> gathered_, converted_;
};

}  // namespace

void convert_block(int64_t rows, int64_t columns, formats::Dtype from_dtype, const std::byte* from,
                   const Strided& source, formats::Dtype to_dtype, std::byte* to,
                   const Strided& target) {
  const bool plain = source.column_step == 1 && target.column_step == 1;
  const int64_t wide = std::min(columns, plain ? kTileElements : kTileEdge);
  const int64_t high = std::max<int64_t>(1, kTileElements / wide);
  Converter converter(from_dtype, from, source, to_dtype, to, target);
  for (int64_t row = 0; row < rows; row += high) {
    for (int64_t column = 0; column < columns; column += wide) {
      converter.convert(
          {row, column, std::min(high, rows - row), std::min(wide, columns - column)});
    }
  }
}

}  // namespace qianli::convert
