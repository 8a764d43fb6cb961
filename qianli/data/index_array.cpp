#include "qianli/data/index_array.h"

#include <fmt/core.h>

#include "qianli/base/error.h"
#include "qianli/formats/npy.h"

namespace qianli::data {
namespace {

IndexArray::Type element_type(const formats::NpyArray& array) {
  const std::string descr = array.descr();
  if (descr == "<i2") return IndexArray::Type::kInt16;
  if (descr == "<i4") return IndexArray::Type::kInt32;
  if (descr == "<u4") return IndexArray::Type::kUint32;
  if (descr == "<i8") return IndexArray::Type::kInt64;
  throw DataError("data",
                  fmt::format("expected an index of type <i2, <i4, <u4 or <i8 in {}, got {}",
                              array.source, descr));
}

int bytes_of(IndexArray::Type type) {
  if (type == IndexArray::Type::kInt16) return 2;
  return type == IndexArray::Type::kInt64 ? 8 : 4;
}

}  // namespace

IndexArray IndexArray::map_npy(const fs::path& path) {
  const auto file = std::make_shared<const formats::NpyFile>(formats::NpyFile::open(path));
  const formats::NpyArray& npy = file->array();
  IndexArray array;
  array.type_ = element_type(npy);
  array.rows_ = npy.shape[0];
  array.columns_ = npy.shape.size() == 2 ? npy.shape[1] : 1;
  array.bytes_ = npy.bytes;
  array.owner_ = file;
  return array;
}

void IndexArray::save_npy(const fs::path& path) const {
  formats::write_npy_bytes(path, bytes_, type_ != Type::kUint32, bytes_of(type_),
                           columns_ == 1 ? 0 : columns_, FileRole::kData);
}

}  // namespace qianli::data
