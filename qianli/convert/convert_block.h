// Copying a block of a matrix from one element type to another.
#pragma once

#include "qianli/convert/strided_copy.h"
#include "qianli/formats/dtype.h"

namespace qianli::convert {

// As strided_copy, with formats::convert_numbers between; the types differ.
void convert_block(int64_t rows, int64_t columns, formats::Dtype from_dtype, const std::byte* from,
                   const Strided& source, formats::Dtype to_dtype, std::byte* to,
                   const Strided& target);

}  // namespace qianli::convert
