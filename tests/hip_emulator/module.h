// Loaded kernel modules and their functions.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "handles.h"
#include "hip_types.h"
#include "kernel_abi.h"

namespace emulator {

struct Module {
    std::uint64_t number = 0;
    void* library = nullptr;
    int file = -1;  // stays open: the loader knows the library by this descriptor's path
    const EmulatorModule* contents = nullptr;
    bool unloaded = false;
    std::vector<hipFunction_t> functions;

    ~Module();
};

struct Function {
    std::shared_ptr<Module> module;
    const EmulatorKernel* kernel = nullptr;
    int dynamic_shared_limit = 0;
};

using ModuleTable = Table<Kind::module, hipModule_t, Module>;
using FunctionTable = Table<Kind::function, hipFunction_t, Function>;
ModuleTable& modules();
FunctionTable& functions();

// Fails with hipErrorInvalidHandle when there is no such function.
std::shared_ptr<Function> function_of(hipFunction_t handle);

constexpr int shared_limit = 64 << 10;  // static and dynamic together, a block
constexpr unsigned max_block_threads = 1024;

}  // namespace emulator
