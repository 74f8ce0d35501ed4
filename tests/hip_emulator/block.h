// Running the blocks of a kernel launch: one block at a time, one thread at a time.
//
// A fiber runs threads one after the other in a plain loop. A thread that has to wait at a barrier
// or a shuffle keeps its fiber, and another fiber goes on with the threads not yet started; so a
// kernel that never waits costs no switch at all. Exited threads count nowhere.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "fiber.h"
#include "kernel_abi.h"

namespace emulator {

struct Dim3 {
    unsigned x = 1;
    unsigned y = 1;
    unsigned z = 1;

    std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

struct LaunchShape {
    Dim3 grid;
    Dim3 block;
    unsigned dynamic_shared = 0;
    std::uint64_t seed = 0;  // decides the order of blocks and threads
};

// False when a block wrote past the dynamic shared memory it asked for.
bool run_kernel(const EmulatorModule& module, const EmulatorKernel& kernel, const char* arguments,
                const LaunchShape& shape);

const EmulatorRuntime& kernel_runtime();

}  // namespace emulator
