// The tensors of a Hugging Face folder.
#pragma once

#include <functional>
#include <string>

#include "qianli/convert/foreign_tensor.h"

namespace qianli::convert {

// Under the names that save_pretrained writes, in the table's order; a parameter whose other
// spelling (experts stacked or one by one) `has` says to be there is told by that one. Repeated
// tensors, such as the embedding beside a multi-token prediction head, are copies.
std::vector<ForeignTensor> hugging_face_tensors(
    const Table& table, const std::function<bool(const std::string&)>& has = {});

}  // namespace qianli::convert
