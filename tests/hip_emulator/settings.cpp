#include "settings.h"

#include <cstdio>
#include <cstdlib>
#include <map>

namespace emulator {
namespace {

const char* variable(const char* name) {
    const char* text = std::getenv(name);
    return text && *text ? text : nullptr;
}

std::uint64_t number_or(const char* name, std::uint64_t otherwise) {
    const char* text = variable(name);
    return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

}  // namespace

const Schedule* schedule_named(const std::string& text) {
    static const std::map<std::string, Schedule> names = {
        {"adversarial", Schedule::adversarial},
        {"eager", Schedule::eager},
    };
    const auto found = names.find(text);
    return found == names.end() ? nullptr : &found->second;
}

Settings Settings::from_environment() {
    Settings result;
    result.seed = number_or("GRAPHEXEC_EMULATOR_SEED", result.seed);
    result.memory_bytes = number_or("GRAPHEXEC_EMULATOR_MEMORY", result.memory_bytes);
    result.verbose = variable("GRAPHEXEC_EMULATOR_VERBOSE") != nullptr;
    if (number_or("GRAPHEXEC_EMULATOR_WAVEFRONT", result.wavefront) == 32) result.wavefront = 32;
    if (const char* text = variable("GRAPHEXEC_EMULATOR_SCHEDULE")) {
        if (const Schedule* schedule = schedule_named(text)) {
            result.schedule = *schedule;
        } else {
            complain(std::string("GRAPHEXEC_EMULATOR_SCHEDULE is neither adversarial nor eager: ") +
                     text);
        }
    }
    return result;
}

Settings& settings() {
    static Settings instance = Settings::from_environment();
    return instance;
}

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    // splitmix64 over both words
    std::uint64_t x = a * 0x9E3779B97F4A7C15 + b + 0x632BE59BD9B4E019;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
}

void explain(const std::string& line) {
    if (settings().verbose) complain(line);
}

void complain(const std::string& line) {
    std::fprintf(stderr, "hip emulator: %s\n", line.c_str());
}

}  // namespace emulator
