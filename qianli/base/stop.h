// Clean stopping: SIGINT and SIGTERM set a flag that long work looks at; a second SIGINT ends the
// program at once.
#pragma once

namespace qianli {

void install_stop_handler();
// The signal that asked to stop, or 0.
int stop_signal();
// Throws StoppedError when a stop was asked for; for work that keeps what it has done.
void throw_if_stopped(const char* component);

}  // namespace qianli
