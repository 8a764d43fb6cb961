// Supervised fine-tuning: the answers in conversations, samples of any lengths.
#pragma once

#include "qianli/train/task.h"

namespace qianli::train {

Task supervised_fine_tuning();

}  // namespace qianli::train
