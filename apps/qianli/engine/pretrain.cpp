#include "apps/qianli/engine/commands.h"
#include "qianli/train/pretrain.h"

namespace qianli::app {

void run_pretrain(const config::Config& config) { train::pretrain(config); }

}  // namespace qianli::app
