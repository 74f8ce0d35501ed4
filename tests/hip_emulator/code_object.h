// The bytes that hiprtcGetCode gives and hipModuleLoadData takes: a shared library of the host
// behind a header that shows damage before anything is loaded.
#pragma once

#include <string>

namespace emulator {

std::string wrap_code(const std::string& library);

// Reads the image behind `pointer` into an anonymous file and returns its descriptor; -1 when it
// is no intact image. The kernel copies the bytes, so a pointer too short for what the header
// says is found out without a crash. The wavefront is that of the device it was compiled for.
int unwrap_code(const void* pointer, unsigned& wavefront);

}  // namespace emulator
