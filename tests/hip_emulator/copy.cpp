// Copies and fills.
#include <algorithm>
#include <cstring>

#include "capture.h"
#include "memory.h"

using namespace emulator;

namespace {

struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;

    std::string label() const {
        return "memcpy " + memory().describe(to) + " <- " + memory().describe(from) + ' ' +
               std::to_string(bytes);
    }
};

// A range that names memory the emulator gave out must lie inside it, now and when it is used.
void require_inside(const void* pointer, std::size_t bytes, const char* what) {
    if (memory().holds(pointer, bytes)) return;
    reject(hipErrorInvalidValue, std::string(what) + " leaves its allocation: " +
                                     memory().describe(pointer) + ", " + std::to_string(bytes) +
                                     " bytes");
}

bool still_there(const void* pointer, std::size_t bytes, const std::string& label) {
    if (memory().holds(pointer, bytes)) return true;
    scheduler().fail(hipErrorIllegalAddress, label + ": the memory has been freed");
    return false;
}

void require_space(const void* pointer, bool device, const char* what) {
    if (memory().find_freed(pointer)) {
        reject(hipErrorInvalidValue, std::string(what) + " has been freed");
    }
    if (memory().is_device(pointer) == device) return;
    reject(hipErrorInvalidValue, std::string(what) + (device ? " is not" : " is") +
                                     " device memory: " + memory().describe(pointer));
}

// Whether each side is device memory, as the kind claims; the claim is checked.
struct Sides {
    bool to_device;
    bool from_device;
};

Sides check(const Copy& copy, hipMemcpyKind kind) {
    if (kind < hipMemcpyHostToHost || kind > hipMemcpyDefault) {
        reject(hipErrorInvalidMemcpyDirection, "no such copy kind");
    }
    if (!copy.to || !copy.from) reject(hipErrorInvalidValue, "a copy from or to a null pointer");
    Sides sides{};
    if (kind == hipMemcpyDefault) {
        sides = {memory().is_device(copy.to), memory().is_device(copy.from)};
    } else {
        sides.to_device = kind == hipMemcpyHostToDevice || kind == hipMemcpyDeviceToDevice;
        sides.from_device = kind == hipMemcpyDeviceToHost || kind == hipMemcpyDeviceToDevice;
    }
    require_space(copy.to, sides.to_device, "the copy's destination");
    require_space(copy.from, sides.from_device, "the copy's source");
    if (memory().find(copy.to)) require_inside(copy.to, copy.bytes, "the copy's destination");
    if (memory().find(copy.from)) require_inside(copy.from, copy.bytes, "the copy's source");
    return sides;
}

Operation copy_operation(const Copy& copy) {
    const std::string label = copy.label();
    const bool to_known = memory().find(copy.to);
    const bool from_known = memory().find(copy.from);
    return {hipGraphNodeTypeMemcpy, label, [copy, label, to_known, from_known] {
                if (to_known && !still_there(copy.to, copy.bytes, label)) return;
                if (from_known && !still_there(copy.from, copy.bytes, label)) return;
                std::memmove(copy.to, copy.from, copy.bytes);
            }};
}

// The host bytes are taken at the call, after the stream's earlier work; their way to the device
// may take longer.
void copy_from_pageable(Stream& stream, const Copy& copy, Lock& lock) {
    synchronize(stream.tail, lock);
    const auto* bytes = static_cast<const char*>(copy.from);
    const auto staged = std::make_shared<std::vector<char>>(bytes, bytes + copy.bytes);
    const std::string label = copy.label();
    submit(stream,
           {hipGraphNodeTypeMemcpy, label,
            [copy, label, staged] {
                if (!still_there(copy.to, copy.bytes, label)) return;
                std::memcpy(copy.to, staged->data(), copy.bytes);
            }},
           lock);
}

hipError_t copy_async(const Copy& copy, hipMemcpyKind kind, hipStream_t handle, Lock& lock) {
    const StreamPtr stream = stream_of(handle);
    require_valid_capture(*stream);
    if (copy.bytes == 0) return hipSuccess;
    const Sides sides = check(copy, kind);
    const bool pageable_to = !memory().find(copy.to);
    const bool pageable_from = !memory().find(copy.from);
    if (stream->capture && (pageable_to || pageable_from)) {
        // A graph would read or write those bytes at every launch, long after this call.
        stream->capture->invalidate();
        reject(hipErrorStreamCaptureUnsupported, "a captured copy from or to pageable memory");
    }
    if (pageable_from && sides.to_device) {
        copy_from_pageable(*stream, copy, lock);
        return hipSuccess;
    }
    submit(*stream, copy_operation(copy), lock);
    if (pageable_to || pageable_from) synchronize(stream->tail, lock);
    return hipSuccess;
}

hipError_t copy_and_wait(const char* function, const Copy& copy, hipMemcpyKind kind,
                         hipStream_t handle, Lock& lock) {
    forbid_while_capturing(function);
    const StreamPtr stream = stream_of(handle);
    forbid_waiting_for(*stream);
    forbid_implicit_dependency(*stream);
    if (copy.bytes == 0) return hipSuccess;
    check(copy, kind);
    submit(*stream, copy_operation(copy), lock);
    synchronize(stream->tail, lock);
    return hipSuccess;
}

template <class Element>
Operation fill_operation(void* to, Element value, std::size_t count) {
    const std::size_t bytes = count * sizeof(Element);
    const std::string label = "memset " + memory().describe(to) + ' ' + std::to_string(bytes);
    return {hipGraphNodeTypeMemset, label, [to, value, count, bytes, label] {
                if (!still_there(to, bytes, label)) return;
                std::fill_n(static_cast<Element*>(to), count, value);
            }};
}

template <class Element>
hipError_t fill(void* to, Element value, std::size_t count, hipStream_t handle, Lock& lock) {
    const StreamPtr stream = stream_of(handle);
    if (count == 0) return hipSuccess;
    if (!memory().find(to)) {
        reject(hipErrorInvalidValue, "memset of memory that HIP does not know");
    }
    require_inside(to, count * sizeof(Element), "the memset");
    submit(*stream, fill_operation(to, value, count), lock);
    return hipSuccess;
}

}  // namespace

EMULATOR_EXPORT hipError_t hipMemcpy(void* to, const void* from, std::size_t bytes,
                                     hipMemcpyKind kind) {
    return hip_call(
        "hipMemcpy",
        [&](Lock& lock) {
            return copy_and_wait("hipMemcpy", {to, from, bytes}, kind, nullptr, lock);
        },
        to, from, bytes, kind);
}

EMULATOR_EXPORT hipError_t hipMemcpyWithStream(void* to, const void* from, std::size_t bytes,
                                               hipMemcpyKind kind, hipStream_t stream) {
    return hip_call(
        "hipMemcpyWithStream",
        [&](Lock& lock) {
            return copy_and_wait("hipMemcpyWithStream", {to, from, bytes}, kind, stream, lock);
        },
        to, from, bytes, kind, stream);
}

EMULATOR_EXPORT hipError_t hipMemcpyAsync(void* to, const void* from, std::size_t bytes,
                                          hipMemcpyKind kind, hipStream_t stream) {
    return hip_call(
        "hipMemcpyAsync",
        [&](Lock& lock) { return copy_async({to, from, bytes}, kind, stream, lock); }, to, from,
        bytes, kind, stream);
}

EMULATOR_EXPORT hipError_t hipMemcpyHtoD(void* to, const void* from, std::size_t bytes) {
    return hip_call(
        "hipMemcpyHtoD",
        [&](Lock& lock) {
            return copy_and_wait("hipMemcpyHtoD", {to, from, bytes}, hipMemcpyHostToDevice, nullptr,
                                 lock);
        },
        to, from, bytes);
}

EMULATOR_EXPORT hipError_t hipMemcpyDtoH(void* to, void* from, std::size_t bytes) {
    return hip_call(
        "hipMemcpyDtoH",
        [&](Lock& lock) {
            return copy_and_wait("hipMemcpyDtoH", {to, from, bytes}, hipMemcpyDeviceToHost, nullptr,
                                 lock);
        },
        to, from, bytes);
}

EMULATOR_EXPORT hipError_t hipMemcpyDtoD(void* to, void* from, std::size_t bytes) {
    return hip_call(
        "hipMemcpyDtoD",
        [&](Lock& lock) {
            return copy_and_wait("hipMemcpyDtoD", {to, from, bytes}, hipMemcpyDeviceToDevice,
                                 nullptr, lock);
        },
        to, from, bytes);
}

EMULATOR_EXPORT hipError_t hipMemcpyHtoDAsync(void* to, const void* from, std::size_t bytes,
                                              hipStream_t stream) {
    return hip_call(
        "hipMemcpyHtoDAsync",
        [&](Lock& lock) {
            return copy_async({to, from, bytes}, hipMemcpyHostToDevice, stream, lock);
        },
        to, from, bytes, stream);
}

EMULATOR_EXPORT hipError_t hipMemcpyDtoHAsync(void* to, void* from, std::size_t bytes,
                                              hipStream_t stream) {
    return hip_call(
        "hipMemcpyDtoHAsync",
        [&](Lock& lock) {
            return copy_async({to, from, bytes}, hipMemcpyDeviceToHost, stream, lock);
        },
        to, from, bytes, stream);
}

EMULATOR_EXPORT hipError_t hipMemcpyDtoDAsync(void* to, void* from, std::size_t bytes,
                                              hipStream_t stream) {
    return hip_call(
        "hipMemcpyDtoDAsync",
        [&](Lock& lock) {
            return copy_async({to, from, bytes}, hipMemcpyDeviceToDevice, stream, lock);
        },
        to, from, bytes, stream);
}

// Queued on the NULL stream; the host waits for it only when the memory is its own.
EMULATOR_EXPORT hipError_t hipMemset(void* to, int value, std::size_t bytes) {
    return hip_call(
        "hipMemset",
        [&](Lock& lock) {
            forbid_while_capturing("hipMemset");
            const hipError_t status =
                fill(to, static_cast<unsigned char>(value), bytes, nullptr, lock);
            if (memory().is_pinned(to)) synchronize(stream_of(nullptr)->tail, lock);
            return status;
        },
        to, value, bytes);
}

EMULATOR_EXPORT hipError_t hipMemsetAsync(void* to, int value, std::size_t bytes,
                                          hipStream_t stream) {
    return hip_call(
        "hipMemsetAsync",
        [&](Lock& lock) {
            return fill(to, static_cast<unsigned char>(value), bytes, stream, lock);
        },
        to, value, bytes, stream);
}

EMULATOR_EXPORT hipError_t hipMemsetD8Async(void* to, unsigned char value, std::size_t count,
                                            hipStream_t stream) {
    return hip_call(
        "hipMemsetD8Async", [&](Lock& lock) { return fill(to, value, count, stream, lock); }, to,
        value, count, stream);
}

EMULATOR_EXPORT hipError_t hipMemsetD32Async(void* to, int value, std::size_t count,
                                             hipStream_t stream) {
    return hip_call(
        "hipMemsetD32Async", [&](Lock& lock) { return fill(to, value, count, stream, lock); }, to,
        value, count, stream);
}
