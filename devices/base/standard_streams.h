// Standard input, output and error of a process.
#pragma once

namespace mnemo {

// A process that was started with one of its standard descriptors closed gives that number to the next file
// or connection that it opens, and its log lines or its output then go there. This opens those that are
// closed on /dev/null, for the wrong direction, so that reading and writing fail with EBADF as they would on
// a closed one. A program whose main calls this does it before the libraries that it links are initialised,
// since some of them open descriptors.
void HoldStandardStreams();

}  // namespace mnemo
