#include "qianli/train/pretrain.h"
#include "apps/qianli/engine/commands.h"

namespace qianli::app {

void run_pretrain(const config::Config& config) { train::pretrain(config); }

}  // namespace qianli::app
