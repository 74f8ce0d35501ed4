// Allocating, freeing and asking about memory.
#include "capture.h"
#include "memory.h"

using namespace emulator;

namespace {

hipError_t allocate(Space space, void** pointer, std::size_t bytes) {
    if (!pointer) return hipErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return hipSuccess;
    *pointer = memory().allocate(space, bytes);
    return *pointer ? hipSuccess : hipErrorOutOfMemory;
}

// Freeing waits for the whole device first, as the real one does.
hipError_t release(Space space, void* pointer, Lock& lock) {
    if (!pointer) return hipSuccess;
    const Allocation* allocation = memory().starting_at(space, pointer);
    if (!allocation || allocation->free_queued) {
        reject(hipErrorInvalidValue, "not an allocation to free: " + memory().describe(pointer));
    }
    scheduler().wait_all(lock);
    memory().release(space, pointer);
    return hipSuccess;
}

hipError_t allocate_host(void** pointer, std::size_t bytes) {
    forbid_while_capturing("hipHostMalloc");
    return allocate(Space::pinned, pointer, bytes);
}

}  // namespace

EMULATOR_EXPORT hipError_t hipMalloc(void** pointer, std::size_t bytes) {
    return hip_call(
        "hipMalloc",
        [&] {
            forbid_while_capturing("hipMalloc");
            return allocate(Space::device, pointer, bytes);
        },
        out(pointer), bytes);
}

EMULATOR_EXPORT hipError_t hipFree(void* pointer) {
    return hip_call(
        "hipFree",
        [&](Lock& lock) {
            forbid_while_capturing("hipFree");
            return release(Space::device, pointer, lock);
        },
        pointer);
}

// Memory nodes do not exist here, so neither half of the pair can be captured.
EMULATOR_EXPORT hipError_t hipMallocAsync(void** pointer, std::size_t bytes, hipStream_t stream) {
    return hip_call(
        "hipMallocAsync",
        [&] {
            forbid_waiting_for(*stream_of(stream));
            return allocate(Space::device, pointer, bytes);
        },
        out(pointer), bytes, stream);
}

EMULATOR_EXPORT hipError_t hipFreeAsync(void* pointer, hipStream_t stream) {
    return hip_call(
        "hipFreeAsync",
        [&](Lock& lock) {
            if (!pointer) return hipSuccess;
            const StreamPtr found = stream_of(stream);
            forbid_waiting_for(*found);
            Allocation* allocation = memory().starting_at(Space::device, pointer);
            if (!allocation || allocation->free_queued) return hipErrorInvalidValue;
            allocation->free_queued = true;
            submit(*found,
                   {hipGraphNodeTypeEmpty, "free " + memory().describe(pointer),
                    [pointer] { memory().release(Space::device, pointer); }},
                   lock);
            return hipSuccess;
        },
        pointer, stream);
}

EMULATOR_EXPORT hipError_t hipHostMalloc(void** pointer, std::size_t bytes, unsigned flags) {
    return hip_call(
        "hipHostMalloc", [&] { return allocate_host(pointer, bytes); }, out(pointer), bytes, flags);
}

EMULATOR_EXPORT hipError_t hipMallocHost(void** pointer, std::size_t bytes) {
    return hip_call(
        "hipMallocHost", [&] { return allocate_host(pointer, bytes); }, out(pointer), bytes);
}

EMULATOR_EXPORT hipError_t hipHostFree(void* pointer) {
    return hip_call(
        "hipHostFree",
        [&](Lock& lock) {
            forbid_while_capturing("hipHostFree");
            return release(Space::pinned, pointer, lock);
        },
        pointer);
}

EMULATOR_EXPORT hipError_t hipFreeHost(void* pointer) { return hipHostFree(pointer); }

EMULATOR_EXPORT hipError_t hipHostGetDevicePointer(void** device, void* host, unsigned flags) {
    return hip_call(
        "hipHostGetDevicePointer",
        [&] {
            if (!device || flags != 0 || !memory().is_pinned(host)) return hipErrorInvalidValue;
            *device = host;
            return hipSuccess;
        },
        out(device), host, flags);
}

EMULATOR_EXPORT hipError_t hipMemGetInfo(std::size_t* free, std::size_t* total) {
    return hip_call(
        "hipMemGetInfo",
        [&] {
            const std::size_t in_use = memory().bytes_in_use(Space::device);
            if (free) *free = settings().memory_bytes - in_use;
            if (total) *total = settings().memory_bytes;
            return hipSuccess;
        },
        out(free), out(total));
}

EMULATOR_EXPORT hipError_t hipPointerGetAttributes(hipPointerAttribute_t* attributes,
                                                   const void* pointer) {
    return hip_call(
        "hipPointerGetAttributes",
        [&] {
            if (!attributes) return hipErrorInvalidValue;
            *attributes = {};
            const Allocation* allocation = memory().find(pointer);
            if (!allocation) return hipSuccess;  // type says "unregistered"
            void* const address = const_cast<void*>(pointer);
            const bool device = allocation->space == Space::device;
            attributes->type = device ? hipMemoryTypeDevice : hipMemoryTypeHost;
            attributes->devicePointer = address;
            attributes->hostPointer = device ? nullptr : address;
            return hipSuccess;
        },
        pointer);
}

EMULATOR_EXPORT hipError_t hipPointerGetAttribute(void* data, hipPointer_attribute attribute,
                                                  void* pointer) {
    return hip_call(
        "hipPointerGetAttribute",
        [&] {
            const Allocation* allocation = memory().find(pointer);
            if (!data || !allocation) return hipErrorInvalidValue;
            const bool device = allocation->space == Space::device;
            switch (attribute) {
                case HIP_POINTER_ATTRIBUTE_MEMORY_TYPE:
                    *static_cast<unsigned*>(data) =
                        device ? hipMemoryTypeDevice : hipMemoryTypeHost;
                    return hipSuccess;
                case HIP_POINTER_ATTRIBUTE_DEVICE_POINTER:
                    *static_cast<void**>(data) = pointer;
                    return hipSuccess;
                case HIP_POINTER_ATTRIBUTE_HOST_POINTER:
                    if (device) return hipErrorInvalidValue;
                    *static_cast<void**>(data) = pointer;
                    return hipSuccess;
                case HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
                    *static_cast<int*>(data) = 0;
                    return hipSuccess;
                case HIP_POINTER_ATTRIBUTE_RANGE_START_ADDR:
                    *static_cast<void**>(data) = allocation->base;
                    return hipSuccess;
                case HIP_POINTER_ATTRIBUTE_RANGE_SIZE:
                    *static_cast<std::size_t*>(data) = allocation->bytes;
                    return hipSuccess;
            }
            return hipErrorNotSupported;
        },
        pointer, attribute);
}
