// Which Qianli this is.
#pragma once

namespace qianli {

// "0.1.0"
const char* version();

}  // namespace qianli
