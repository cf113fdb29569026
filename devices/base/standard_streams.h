// Protection of standard input, output and error.
#pragma once

namespace mnemo {

// Opens closed standard descriptors on /dev/null. Without this, the next file or connection gets the number
// of a closed one, and log lines or output go there. Each is opened for the wrong direction, so that reads
// and writes still fail with EBADF. In a program whose main calls this, the call also runs before its
// libraries are initialised, since some of them open descriptors.
void HoldStandardStreams();

}  // namespace mnemo
