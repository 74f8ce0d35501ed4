// The call trace (one line an API call) and the execution log (one line an executed command).
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <type_traits>

#include "hip_types.h"

namespace emulator {

// Lines kept in memory while collecting, and written to a file if one is named.
class LineLog {
public:
    explicit LineLog(const char* path = nullptr);

    bool active() const { return collecting_ || file_ != nullptr; }
    void start();
    void add(const std::string& line);
    // Copies the lines with a final NUL and forgets them if they fit; returns the bytes needed.
    std::size_t take(char* out, std::size_t capacity);
    void stop();

private:
    bool collecting_ = false;
    std::string lines_;
    std::FILE* file_ = nullptr;  // open until the process ends
};

LineLog& call_trace();      // also written to GRAPHEXEC_EMULATOR_TRACE
LineLog& execution_log();

std::string describe_pointer(const void* pointer);

// A value that the call writes through a pointer: shown once the call has succeeded.
template <class T>
struct Out {
    const T* where;
};
template <class T>
Out<T> out(const T* where) {
    return {where};
}

template <class T>
std::string describe(const T& value, bool succeeded) {
    if constexpr (std::is_same_v<T, std::string>) {
        return value;
    } else if constexpr (std::is_same_v<T, const char*>) {
        return value ? '"' + std::string(value).substr(0, 60) + '"' : "null";
    } else if constexpr (std::is_pointer_v<T> && !std::is_function_v<std::remove_pointer_t<T>>) {
        return describe_pointer(value);
    } else if constexpr (std::is_enum_v<T>) {
        return std::to_string(static_cast<long long>(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
        return std::to_string(value);
    } else {
        static_cast<void>(succeeded);
        return "?";
    }
}

template <class T>
std::string describe(const Out<T>& value, bool succeeded) {
    return succeeded && value.where ? describe(*value.where, true) : "?";
}

std::string status_name(hipError_t status);
std::string status_name(hiprtcResult status);
std::string status_name(hipblasStatus_t status);
std::string status_name(ncclResult_t status);

template <class Status, class... Args>
void trace_call(const char* name, Status status, const Args&... args) {
    [[maybe_unused]] const bool succeeded = static_cast<int>(status) == 0;
    std::string line = std::string(name) + '(';
    [[maybe_unused]] bool first = true;
    ((line += (first ? "" : ",") + describe(args, succeeded), first = false), ...);
    call_trace().add(line + ") -> " + status_name(status));
}

}  // namespace emulator
