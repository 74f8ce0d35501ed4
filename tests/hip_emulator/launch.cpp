// hipModuleLaunchKernel: checking a launch, packing its arguments, running it.
#include "launch.h"

#include <cstring>

#include "block.h"
#include "capture.h"
#include "memory.h"
#include "module.h"

using namespace emulator;

namespace {

using Bytes = std::vector<char>;

std::uint64_t launches = 0;

void check_shape(const Function& function, const LaunchShape& shape) {
    const unsigned bound = function.kernel->max_threads;
    const std::uint64_t limit = bound && bound < max_block_threads ? bound : max_block_threads;
    if (shape.grid.count() == 0 || shape.block.count() == 0) {
        reject(hipErrorInvalidConfiguration, "a launch of no threads");
    }
    if (shape.block.count() > limit) {
        reject(hipErrorInvalidConfiguration,
               "a block of " + std::to_string(shape.block.count()) + " threads, at most " +
                   std::to_string(limit) + " are allowed");
    }
    constexpr std::uint64_t thread_range = std::uint64_t{1} << 32;
    if (std::uint64_t{shape.grid.x} * shape.block.x >= thread_range ||
        std::uint64_t{shape.grid.y} * shape.block.y >= thread_range ||
        std::uint64_t{shape.grid.z} * shape.block.z >= thread_range) {
        reject(hipErrorInvalidConfiguration, "a dimension of the grid has 2^32 threads or more");
    }
    if (shape.dynamic_shared > static_cast<unsigned>(function.dynamic_shared_limit)) {
        reject(hipErrorInvalidValue,
               std::to_string(shape.dynamic_shared) + " bytes of dynamic shared memory, at most " +
                   std::to_string(function.dynamic_shared_limit) + " are allowed");
    }
}

// The packed buffer that `extra` describes. Its size must be the parameters' size, give or take
// the padding at the end: anything else is another signature.
Bytes packed_arguments(const EmulatorKernel& kernel, void** extra) {
    const void* buffer = nullptr;
    const std::size_t* bytes = nullptr;
    for (;; extra += 2) {
        const auto key = reinterpret_cast<std::uintptr_t>(extra[0]);
        if (key == HIP_LAUNCH_PARAM_END) break;
        if (key == HIP_LAUNCH_PARAM_BUFFER_POINTER) {
            buffer = extra[1];
        } else if (key == HIP_LAUNCH_PARAM_BUFFER_SIZE) {
            bytes = static_cast<const std::size_t*>(extra[1]);
        } else {
            reject(hipErrorInvalidValue, "`extra` has the unknown key " + std::to_string(key));
        }
    }
    const std::size_t given = bytes ? *bytes : 0;
    constexpr std::size_t padding = 7;
    if ((given && !buffer) || given < kernel.argument_bytes ||
        given > kernel.argument_bytes + padding) {
        reject(hipErrorInvalidValue, std::string(kernel.name) + " takes " +
                                         std::to_string(kernel.argument_bytes) +
                                         " bytes of arguments, not " + std::to_string(given));
    }
    const auto* begin = static_cast<const char*>(buffer);
    return Bytes(begin, begin + kernel.argument_bytes);
}

Bytes pointed_arguments(const EmulatorKernel& kernel, void** parameters) {
    Bytes result(kernel.argument_bytes);
    for (unsigned i = 0; i < kernel.parameter_count; ++i) {
        const EmulatorParameter& parameter = kernel.parameters[i];
        std::memcpy(result.data() + parameter.offset, parameters[i], parameter.bytes);
    }
    return result;
}

Bytes arguments_of(const EmulatorKernel& kernel, void** parameters, void** extra) {
    if (parameters && extra) reject(hipErrorInvalidValue, "both kernelParams and extra are given");
    if (extra) return packed_arguments(kernel, extra);
    if (parameters) return pointed_arguments(kernel, parameters);
    if (kernel.argument_bytes) {
        reject(hipErrorInvalidValue, std::string(kernel.name) + " was given no arguments");
    }
    return {};
}

const void* pointer_in(const Bytes& arguments, const EmulatorParameter& parameter) {
    const void* result;
    std::memcpy(&result, arguments.data() + parameter.offset, sizeof result);
    return result;
}

// What the hardware would fault on: a pointer argument that is neither null nor in memory that
// HIP gave out and has not taken back.
bool pointers_valid(const EmulatorKernel& kernel, const Bytes& arguments) {
    for (unsigned i = 0; i < kernel.parameter_count; ++i) {
        if (!kernel.parameters[i].pointer) continue;
        const void* pointer = pointer_in(arguments, kernel.parameters[i]);
        if (!pointer || memory().find(pointer)) continue;
        scheduler().fail(hipErrorIllegalAddress, std::string(kernel.name) + ": argument " +
                                                     std::to_string(i) + " points to " +
                                                     memory().describe(pointer) + " memory");
        return false;
    }
    return true;
}

std::string describe_arguments(const EmulatorKernel& kernel, const Bytes& arguments) {
    std::string result = "[";
    for (unsigned i = 0; i < kernel.parameter_count; ++i) {
        const EmulatorParameter& parameter = kernel.parameters[i];
        if (i) result += ' ';
        if (parameter.pointer) {
            result += describe_pointer(pointer_in(arguments, parameter));
        } else {
            static const char digits[] = "0123456789abcdef";
            result += "0x";
            for (unsigned byte = parameter.bytes; byte-- > 0;) {
                const auto value = static_cast<unsigned char>(arguments[parameter.offset + byte]);
                result += {digits[value >> 4], digits[value & 15]};
            }
        }
    }
    return result + ']';
}

void run(const Function& function, const Bytes& arguments, LaunchShape shape) {
    const EmulatorKernel& kernel = *function.kernel;
    if (function.module->unloaded) {
        scheduler().fail(hipErrorIllegalAddress,
                         std::string(kernel.name) + ": its module has been unloaded");
        return;
    }
    if (!pointers_valid(kernel, arguments)) return;
    const bool adversarial = settings().schedule == Schedule::adversarial;
    shape.seed = adversarial ? mix(settings().seed, ++launches) : 0;
    if (!run_kernel(*function.module->contents, kernel, arguments.data(), shape)) {
        scheduler().fail(hipErrorIllegalAddress,
                         std::string(kernel.name) + ": wrote past its dynamic shared memory");
    }
}

}  // namespace

void emulator::reset_launches() { launches = 0; }

EMULATOR_EXPORT hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned grid_x,
                                                 unsigned grid_y, unsigned grid_z, unsigned block_x,
                                                 unsigned block_y, unsigned block_z,
                                                 unsigned dynamic_shared, hipStream_t stream,
                                                 void** parameters, void** extra) {
    std::string name = "?";
    std::string described = "[]";
    return hip_call(
        "hipModuleLaunchKernel",
        [&](Lock& lock) {
            const std::shared_ptr<Function> found = function_of(function);
            const EmulatorKernel& kernel = *found->kernel;
            name = kernel.name;
            LaunchShape shape;
            shape.grid = {grid_x, grid_y, grid_z};
            shape.block = {block_x, block_y, block_z};
            shape.dynamic_shared = dynamic_shared;
            const StreamPtr into = stream_of(stream);
            check_shape(*found, shape);
            Bytes arguments = arguments_of(kernel, parameters, extra);
            if (call_trace().active()) described = describe_arguments(kernel, arguments);
            submit(*into,
                   {hipGraphNodeTypeKernel, "kernel " + name,
                    [found, arguments = std::move(arguments), shape] {
                        run(*found, arguments, shape);
                    }},
                   lock);
            return hipSuccess;
        },
        name, grid_x, grid_y, grid_z, block_x, block_y, block_z, dynamic_shared, stream, described);
}
