#include "module.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "block.h"
#include "capture.h"
#include "code_object.h"

namespace emulator {
namespace {

std::shared_ptr<Module> module_of(hipModule_t handle) {
    std::shared_ptr<Module> module = modules().find(handle);
    if (!module) reject(hipErrorInvalidHandle, "no such module: " + describe_pointer(handle));
    return module;
}

hipError_t load(hipModule_t* handle, const void* image) {
    if (!handle || !image) return hipErrorInvalidValue;
    forbid_while_capturing("hipModuleLoadData");
    *handle = nullptr;
    const auto module = std::make_shared<Module>();
    unsigned wavefront = 0;
    module->file = unwrap_code(image, wavefront);
    if (module->file < 0) reject(hipErrorInvalidImage, "the code is damaged or no code");
    if (wavefront != settings().wavefront) {
        reject(hipErrorNoBinaryForGpu, "the code was compiled for another wavefront size");
    }
    const std::string path = "/proc/self/fd/" + std::to_string(module->file);
    module->library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!module->library) reject(hipErrorSharedObjectInitFailed, dlerror());
    const auto entry =
        reinterpret_cast<EmulatorModuleEntry>(dlsym(module->library, "emulator_module"));
    if (!entry) reject(hipErrorSharedObjectInitFailed, "the code has no kernel table");
    module->contents = entry(&kernel_runtime());
    module->number = modules().next_number();
    *handle = modules().add(module);
    return hipSuccess;
}

// A kernel that is not extern "C" has another symbol than its name, and is not found; one named
// through hiprtcAddNameExpression is looked up by its lowered name, which is the expression.
const EmulatorKernel* find_kernel(const Module& module, const char* name) {
    const EmulatorModule& contents = *module.contents;
    for (std::size_t i = 0; i < contents.kernel_count; ++i) {
        const EmulatorKernel& kernel = contents.kernels[i];
        if (std::strcmp(kernel.name, name) != 0) continue;
        const bool is_expression = std::strpbrk(name, "<>&:(") != nullptr;
        if (is_expression || dlsym(module.library, name) == kernel.address) return &kernel;
    }
    return nullptr;
}

int static_shared_bytes(const Function& function) {
    const EmulatorModule& contents = *function.module->contents;
    return static_cast<int>(contents.shared_end - contents.shared_begin);
}

unsigned thread_limit(const Function& function) {
    const unsigned bound = function.kernel->max_threads;
    return bound ? std::min(bound, max_block_threads) : max_block_threads;
}

}  // namespace

Module::~Module() {
    if (library) dlclose(library);
    if (file >= 0) close(file);
}

ModuleTable& modules() {
    static ModuleTable instance;
    return instance;
}

FunctionTable& functions() {
    static FunctionTable instance;
    return instance;
}

std::shared_ptr<Function> function_of(hipFunction_t handle) {
    std::shared_ptr<Function> function = functions().find(handle);
    if (!function) reject(hipErrorInvalidHandle, "no such function: " + describe_pointer(handle));
    return function;
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipError_t hipModuleLoadData(hipModule_t* module, const void* image) {
    return hip_call("hipModuleLoadData", [&] { return load(module, image); }, out(module));
}

EMULATOR_EXPORT hipError_t hipModuleLoadDataEx(hipModule_t* module, const void* image,
                                               unsigned option_count, void*, void**) {
    return hip_call(
        "hipModuleLoadDataEx", [&] { return load(module, image); }, out(module), option_count);
}

// Returns at once. Work that is still queued must not use the module any more: see launch.cpp.
EMULATOR_EXPORT hipError_t hipModuleUnload(hipModule_t module) {
    return hip_call(
        "hipModuleUnload",
        [&] {
            const std::shared_ptr<Module> found = module_of(module);
            found->unloaded = true;
            for (const hipFunction_t function : found->functions) functions().remove(function);
            modules().remove(module);
            return hipSuccess;
        },
        module);
}

EMULATOR_EXPORT hipError_t hipModuleGetFunction(hipFunction_t* function, hipModule_t module,
                                                const char* name) {
    return hip_call(
        "hipModuleGetFunction",
        [&] {
            if (!function || !name) return hipErrorInvalidValue;
            *function = nullptr;
            const std::shared_ptr<Module> found = module_of(module);
            const EmulatorKernel* kernel = find_kernel(*found, name);
            if (!kernel) return hipErrorNotFound;
            const auto added = std::make_shared<Function>();
            added->module = found;
            added->kernel = kernel;
            added->dynamic_shared_limit = shared_limit - static_shared_bytes(*added);
            *function = functions().add(added);
            found->functions.push_back(*function);
            return hipSuccess;
        },
        out(function), module, name);
}

EMULATOR_EXPORT hipError_t hipFuncSetAttribute(const void* function, hipFuncAttribute attribute,
                                               int value) {
    return hip_call(
        "hipFuncSetAttribute",
        [&] {
            const auto handle = static_cast<hipFunction_t>(const_cast<void*>(function));
            const std::shared_ptr<Function> found = function_of(handle);
            if (attribute == hipFuncAttributePreferredSharedMemoryCarveout) return hipSuccess;
            if (attribute != hipFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
                value > shared_limit - static_shared_bytes(*found)) {
                return hipErrorInvalidValue;
            }
            found->dynamic_shared_limit = value;
            return hipSuccess;
        },
        function, attribute, value);
}

EMULATOR_EXPORT hipError_t hipFuncGetAttribute(int* value, hipFunction_attribute attribute,
                                               hipFunction_t function) {
    return hip_call(
        "hipFuncGetAttribute",
        [&] {
            const std::shared_ptr<Function> found = function_of(function);
            if (!value) return hipErrorInvalidValue;
            switch (attribute) {
                case HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
                    *value = static_cast<int>(thread_limit(*found));
                    return hipSuccess;
                case HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
                    *value = static_shared_bytes(*found);
                    return hipSuccess;
                case HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
                    *value = found->dynamic_shared_limit;
                    return hipSuccess;
                case HIP_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
                case HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
                case HIP_FUNC_ATTRIBUTE_NUM_REGS:
                case HIP_FUNC_ATTRIBUTE_PTX_VERSION:
                case HIP_FUNC_ATTRIBUTE_BINARY_VERSION:
                case HIP_FUNC_ATTRIBUTE_CACHE_MODE_CA:
                case HIP_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
                    *value = 0;
                    return hipSuccess;
            }
            return hipErrorInvalidValue;
        },
        out(value), attribute, function);
}

EMULATOR_EXPORT hipError_t hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
    int* blocks, hipFunction_t function, int block_size, std::size_t dynamic_shared) {
    return hip_call(
        "hipModuleOccupancyMaxActiveBlocksPerMultiprocessor",
        [&] {
            const std::shared_ptr<Function> found = function_of(function);
            if (!blocks || block_size <= 0) return hipErrorInvalidValue;
            const auto threads = static_cast<unsigned>(block_size);
            const std::size_t shared = dynamic_shared + static_shared_bytes(*found);
            if (threads > thread_limit(*found) || shared > shared_limit) {
                *blocks = 0;
            } else {
                const std::size_t by_threads = 2 * max_block_threads / threads;
                const std::size_t by_shared = shared ? shared_limit / shared : by_threads;
                *blocks = static_cast<int>(std::min(by_threads, by_shared));
            }
            return hipSuccess;
        },
        out(blocks), function, block_size, dynamic_shared);
}
