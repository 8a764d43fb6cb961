// Pretraining: all tokens of documents, in sequences of one length.
#pragma once

#include "qianli/train/task.h"

namespace qianli::train {

Task pretraining();

}  // namespace qianli::train
