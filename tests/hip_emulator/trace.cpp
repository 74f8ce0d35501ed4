#include "trace.h"

#include <cstdlib>
#include <cstring>

#include "handles.h"
#include "memory.h"

namespace emulator {

LineLog::LineLog(const char* path) {
    if (path && *path) file_ = std::fopen(path, "w");
}

void LineLog::start() {
    collecting_ = true;
    lines_.clear();
}

void LineLog::stop() {
    collecting_ = false;
    lines_.clear();
}

void LineLog::add(const std::string& line) {
    if (collecting_) lines_ += line + '\n';
    if (!file_) return;
    std::fprintf(file_, "%s\n", line.c_str());
    std::fflush(file_);
}

std::size_t LineLog::take(char* out, std::size_t capacity) {
    const std::size_t needed = lines_.size() + 1;
    if (out && capacity >= needed) {
        std::memcpy(out, lines_.c_str(), needed);
        lines_.clear();
    }
    return needed;
}

LineLog& call_trace() {
    static LineLog instance(std::getenv("GRAPHEXEC_EMULATOR_TRACE"));
    return instance;
}

LineLog& execution_log() {
    static LineLog instance;
    return instance;
}

std::string describe_pointer(const void* pointer) {
    if (!pointer) return "null";
    const auto bits = reinterpret_cast<std::uint64_t>(pointer);
    return is_handle(bits) ? handle_name(bits) : memory().describe(pointer);
}

std::string handle_name(std::uint64_t bits) {
    static const char* const names[] = {
        "?",       "stream", "event",  "graph",       "exec",   "node",      "module",
        "function", "program", "handle", "lthandle", "matmul", "layout", "preference",
    };
    const auto kind = static_cast<std::size_t>(handle_kind(bits));
    const char* name = kind < std::size(names) ? names[kind] : names[0];
    return std::string(name) + '#' + std::to_string(handle_number(bits));
}

}  // namespace emulator
