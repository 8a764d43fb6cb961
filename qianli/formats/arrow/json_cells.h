// Cells of Arrow arrays as JSON text.
#pragma once

#include <arrow/type_fwd.h>

#include <string>

namespace qianli::formats {

// Whether every value of the type has a form in JSON: unions have none.
bool has_json_form(const arrow::DataType& type);

// Appends cell `row`. Numbers, truth values, lists, structs (objects), maps (objects where the keys
// are texts, else lists of pairs) and texts become what they are; bytes become base64, and times,
// decimals and what else there is the text that Arrow writes. A missing value is null. A number
// that is not finite is written as NaN, Infinity or -Infinity, which parsers refuse in that row.
// Texts are not checked to be UTF-8. Throws std::runtime_error for a type without a form.
void append_json(const arrow::Array& array, int64_t row, std::string& out);
void append_json_text(std::string_view text, std::string& out);

}  // namespace qianli::formats
