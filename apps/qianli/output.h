// The program's standard streams.
#pragma once

namespace qianli::app {

// Puts /dev/null in the place of standard streams that the caller closed, so that no file the
// program opens gets their numbers and what is printed never lands in it.
void open_standard_streams();

// Flushes standard output. Throws DataError where it cannot be written; a reader that went away
// (`| head`) is no error: it has all it wanted.
void finish_output();

}  // namespace qianli::app
