// The frame of every exported function: the lock, injected faults, the last error, the trace.
#pragma once

#include <mutex>
#include <type_traits>

#include "faults.h"
#include "hip_types.h"
#include "settings.h"
#include "trace.h"

namespace emulator {

// One lock guards all state. Commands run under it too: the device is one engine that executes
// one command at a time, which makes every run repeatable.
using Lock = std::unique_lock<std::mutex>;
std::mutex& state_mutex();

// Thrown inside an API function, becomes its status.
struct Failure {
    hipError_t status;
};

// Fails and, with GRAPHEXEC_EMULATOR_VERBOSE, says why.
[[noreturn]] void reject(hipError_t status, const std::string& why);

template <class Status>
Status status_from(hipError_t status);
template <>
inline hipError_t status_from(hipError_t status) {
    return status;
}
template <>
hipblasStatus_t status_from(hipError_t status);
template <>
ncclResult_t status_from(hipError_t status);

// ROCm 7: the last real error of this thread, kept until it is read.
void remember_error(hipError_t status);
inline void remember_error(hipblasStatus_t) {}
inline void remember_error(hiprtcResult) {}
inline void remember_error(ncclResult_t) {}
void forget_last_error();  // of the calling thread

template <class Status, class Body>
Status run_body(Body& body, Lock& lock) {
    try {
        if constexpr (std::is_invocable_v<Body&, Lock&>) {
            return body(lock);
        } else {
            return body();
        }
    } catch (const Failure& failure) {
        if constexpr (std::is_same_v<Status, hiprtcResult>) {
            return HIPRTC_ERROR_INTERNAL_ERROR;
        } else {
            return status_from<Status>(failure.status);
        }
    }
}

template <class Status, class Body, class... Args>
Status api_call(const char* name, Body body, const Args&... args) {
    Lock lock(state_mutex());
    const std::optional<int> injected = faults().count(name);
    const Status status = injected ? static_cast<Status>(*injected) : run_body<Status>(body, lock);
    remember_error(status);
    if (call_trace().active()) trace_call(name, status, args...);
    return status;
}

template <class Body, class... Args>
hipError_t hip_call(const char* name, Body body, const Args&... args) {
    return api_call<hipError_t>(name, body, args...);
}

}  // namespace emulator

#define EMULATOR_EXPORT extern "C" __attribute__((visibility("default")))
