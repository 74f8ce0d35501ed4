// What the environment variables and the emulatorSet… functions say.
#pragma once

#include <cstdint>
#include <string>

namespace emulator {

enum class Schedule {
    adversarial,  // commands run as late and in as bad an order as the API allows
    eager,        // every command runs the moment it is issued: hides races
};

struct Settings {
    std::uint64_t seed = 0;
    Schedule schedule = Schedule::adversarial;
    std::uint64_t memory_bytes = std::uint64_t{4} << 30;
    unsigned wavefront = 64;
    bool verbose = false;

    static Settings from_environment();
};

Settings& settings();

// Null when the text names no schedule.
const Schedule* schedule_named(const std::string& text);

// A well-mixed number for a seeded decision: the same inputs always decide the same way.
std::uint64_t mix(std::uint64_t a, std::uint64_t b);

// A line on stderr, only with GRAPHEXEC_EMULATOR_VERBOSE.
void explain(const std::string& line);

// A line on stderr, always: for what real hardware would answer with a crash.
void complain(const std::string& line);

}  // namespace emulator
