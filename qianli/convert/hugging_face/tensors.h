// The tensors of a Hugging Face folder.
#pragma once

#include "qianli/convert/foreign_tensor.h"
#include "qianli/convert/hugging_face/folder_names.h"

namespace qianli::convert {

// Under the names that save_pretrained writes, in the table's order. Repeated tensors, such as the
// embedding beside a multi-token prediction head, are copies.
std::vector<ForeignTensor> hugging_face_tensors(const Table& table);

// Under the names of a folder that is read: a parameter whose other spelling (experts stacked or
// one by one) is there is told by that one; a tied output layer that is stored all the same is a
// copy of the embedding. A tensor that is nowhere keeps the name it should have.
std::vector<ForeignTensor> stored_tensors(const Table& table, const FolderNames& names);

// Many folders come without the heads for tokens further ahead that their config.json speaks of.
bool lacks_prediction_heads(const Table& table, const FolderNames& names);

}  // namespace qianli::convert
