// The commands that answer with a model; see command.h.
#pragma once

namespace CLI {
class App;
}

namespace qianli::app {

void add_chat(CLI::App& app);
void add_serve(CLI::App& app);

}  // namespace qianli::app
