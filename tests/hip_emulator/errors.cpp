// Status codes: their names and texts, and the last error of each thread.
#include <string>

#include "call.h"

namespace emulator {
namespace {

thread_local hipError_t last_error = hipSuccess;

struct ErrorText {
    int value;
    const char* name;
    const char* text;
};

#define ERROR_ROW(name, value, text) {value, #name, text},
constexpr ErrorText hip_errors[] = {HIP_ERRORS(ERROR_ROW)};
#undef ERROR_ROW
#define STATUS_ROW(name, value) {value, #name, #name},
constexpr ErrorText hiprtc_results[] = {HIPRTC_RESULTS(STATUS_ROW)};
constexpr ErrorText hipblas_statuses[] = {HIPBLAS_STATUSES(STATUS_ROW)};
#undef STATUS_ROW

template <std::size_t n>
const ErrorText* find(const ErrorText (&rows)[n], int value) {
    for (const ErrorText& row : rows) {
        if (row.value == value) return &row;
    }
    return nullptr;
}

template <std::size_t n>
std::string name_in(const ErrorText (&rows)[n], int value) {
    const ErrorText* row = find(rows, value);
    return row ? row->name : std::to_string(value);
}

}  // namespace

std::mutex& state_mutex() {
    static std::mutex instance;
    return instance;
}

void reject(hipError_t status, const std::string& why) {
    explain(status_name(status) + ": " + why);
    throw Failure{status};
}

template <>
hipblasStatus_t status_from(hipError_t status) {
    switch (status) {
        case hipSuccess: return HIPBLAS_STATUS_SUCCESS;
        case hipErrorInvalidValue:
        case hipErrorInvalidHandle: return HIPBLAS_STATUS_INVALID_VALUE;
        case hipErrorOutOfMemory: return HIPBLAS_STATUS_ALLOC_FAILED;
        case hipErrorNotSupported: return HIPBLAS_STATUS_NOT_SUPPORTED;
        default: return HIPBLAS_STATUS_INTERNAL_ERROR;
    }
}

void remember_error(hipError_t status) {
    if (status != hipSuccess && status != hipErrorNotReady) last_error = status;
}

void forget_last_error() { last_error = hipSuccess; }

std::string status_name(hipError_t status) { return name_in(hip_errors, status); }
std::string status_name(hiprtcResult status) { return name_in(hiprtc_results, status); }
std::string status_name(hipblasStatus_t status) { return name_in(hipblas_statuses, status); }

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT const char* hipGetErrorName(hipError_t status) {
    const ErrorText* row = find(hip_errors, status);
    return row ? row->name : "hipErrorUnknown";
}

EMULATOR_EXPORT const char* hipGetErrorString(hipError_t status) {
    const ErrorText* row = find(hip_errors, status);
    return row ? row->text : "unknown error";
}

EMULATOR_EXPORT hipError_t hipDrvGetErrorName(hipError_t status, const char** name) {
    const ErrorText* row = find(hip_errors, status);
    *name = row ? row->name : nullptr;
    return row ? hipSuccess : hipErrorInvalidValue;
}

EMULATOR_EXPORT hipError_t hipDrvGetErrorString(hipError_t status, const char** text) {
    const ErrorText* row = find(hip_errors, status);
    *text = row ? row->text : nullptr;
    return row ? hipSuccess : hipErrorInvalidValue;
}

EMULATOR_EXPORT hipError_t hipGetLastError() {
    const hipError_t status = last_error;
    last_error = hipSuccess;
    return status;
}

EMULATOR_EXPORT hipError_t hipExtGetLastError() { return hipGetLastError(); }

EMULATOR_EXPORT hipError_t hipPeekAtLastError() { return last_error; }

EMULATOR_EXPORT const char* hiprtcGetErrorString(hiprtcResult result) {
    const ErrorText* row = find(hiprtc_results, result);
    return row ? row->name : "HIPRTC_ERROR_UNKNOWN";
}

EMULATOR_EXPORT const char* hipblasStatusToString(hipblasStatus_t status) {
    const ErrorText* row = find(hipblas_statuses, status);
    return row ? row->name : "HIPBLAS_STATUS_UNKNOWN";
}
