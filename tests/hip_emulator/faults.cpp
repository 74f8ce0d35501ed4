#include "faults.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "settings.h"

namespace emulator {
namespace {

std::optional<std::uint64_t> number(const std::string& text) {
    if (text.empty() || text.size() > 18) return std::nullopt;
    for (const char c : text) {
        if (!std::isdigit(static_cast<unsigned char>(c))) return std::nullopt;
    }
    return std::stoull(text);
}

}  // namespace

// name:call=status
bool Faults::add_entry(const std::string& entry, Table& table) {
    const std::size_t colon = entry.find(':');
    const std::size_t equals = entry.find('=');
    if (colon == std::string::npos || colon == 0 || equals == std::string::npos || equals < colon) {
        return false;
    }
    const std::string which = entry.substr(colon + 1, equals - colon - 1);
    const auto call = which == "*" ? every_call : number(which);
    const auto status = number(entry.substr(equals + 1));
    if (!call || !status) return false;
    table[entry.substr(0, colon)].push_back({*call, static_cast<int>(*status)});
    return true;
}

bool Faults::set(const std::string& text) {
    Table parsed;
    for (std::size_t start = 0; start < text.size();) {
        const std::size_t end = std::min(text.find(',', start), text.size());
        const std::size_t first = std::min(text.find_first_not_of(' ', start), end);
        if (!add_entry(text.substr(first, end - first), parsed)) return false;
        start = end + 1;
    }
    faults_ = std::move(parsed);
    calls_.clear();
    return true;
}

std::optional<int> Faults::count(const char* function) {
    if (faults_.empty()) return std::nullopt;
    const auto found = faults_.find(function);
    if (found == faults_.end()) return std::nullopt;
    const std::uint64_t call = ++calls_[function];
    for (const Fault& fault : found->second) {
        if (fault.call == every_call || fault.call == call) return fault.status;
    }
    return std::nullopt;
}

Faults Faults::from_environment() {
    Faults result;
    const char* text = std::getenv("GRAPHEXEC_EMULATOR_FAIL");
    if (text && !result.set(text)) {
        complain(std::string("GRAPHEXEC_EMULATOR_FAIL is not name:call=status,…: ") + text);
    }
    return result;
}

Faults& faults() {
    static Faults instance = Faults::from_environment();
    return instance;
}

}  // namespace emulator
