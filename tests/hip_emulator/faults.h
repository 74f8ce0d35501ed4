// Failures asked for by GRAPHEXEC_EMULATOR_FAIL or emulatorFail: the n-th call of a function
// returns a status and does nothing else.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace emulator {

class Faults {
public:
    // "hipMalloc:3=2,hipModuleLaunchKernel:*=719"; an empty text removes every fault.
    // False, and nothing changes, when the text is malformed.
    bool set(const std::string& text);

    // Counts a call; the status it must return if it is one of those to fail.
    std::optional<int> count(const char* function);

    static Faults from_environment();

private:
    struct Fault {
        std::uint64_t call;  // 1-based
        int status;
    };
    using Table = std::map<std::string, std::vector<Fault>>;
    static constexpr std::optional<std::uint64_t> every_call = 0;
    static bool add_entry(const std::string& entry, Table& table);

    Table faults_;
    std::map<std::string, std::uint64_t> calls_;
};

Faults& faults();

}  // namespace emulator
