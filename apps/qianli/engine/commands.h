// Entry points of the commands that compute; see apps/qianli/engine.h.
#pragma once

#include "apps/qianli/engine.h"

namespace qianli::app {

void run_pretrain(const config::Config& config);
void run_sft(const config::Config& config);
void run_generate(const GenerateArguments& arguments);
void run_chat(const ChatArguments& arguments);
void run_serve(const ServeArguments& arguments);
void run_score(const ScoreArguments& arguments);
LogitsDifference run_compare_logits(const LogitsArguments& arguments);
void run_doctor(bool json);
void run_backends(bool json);

}  // namespace qianli::app
