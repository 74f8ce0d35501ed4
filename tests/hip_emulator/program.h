// A hiprtc program: a source on its way to code.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "compiler.h"
#include "handles.h"
#include "hip_types.h"

namespace emulator {

struct Program {
    std::string source;
    std::string name;
    std::vector<Header> headers;
    std::set<std::string> name_expressions;
    std::vector<std::string> kernels;
    std::string log;
    std::string code;  // empty until compiled
};

using ProgramTable = Table<Kind::program, hiprtcProgram, Program>;
ProgramTable& programs();

}  // namespace emulator
