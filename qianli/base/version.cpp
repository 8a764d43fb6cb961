#include "qianli/base/version.h"

namespace qianli {

const char* version() { return QIANLI_VERSION; }

}  // namespace qianli
