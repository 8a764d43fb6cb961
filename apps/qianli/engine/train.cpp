#include "apps/qianli/engine/commands.h"
#include "qianli/train/loop.h"
#include "qianli/train/pretrain.h"
#include "qianli/train/sft.h"

namespace qianli::app {

void run_pretrain(const config::Config& config) { train::run_task(train::pretraining(), config); }

void run_sft(const config::Config& config) {
  train::run_task(train::supervised_fine_tuning(), config);
}

}  // namespace qianli::app
