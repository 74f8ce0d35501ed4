// The registry of device and pinned host allocations.
//
// Device memory is host memory that only the emulator knows to be "device". New memory is filled
// with 0xFF (a NaN in every float type), freed memory again, and its address stays out of use for
// a while, so that a pointer to it is recognised.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>

#include "hip_types.h"

namespace emulator {

enum class Space { device, pinned };

struct Allocation {
    std::uint64_t number = 0;
    Space space = Space::device;
    char* base = nullptr;
    std::size_t bytes = 0;
    bool free_queued = false;  // hipFreeAsync has been issued but has not run yet

    std::size_t offset_of(const void* pointer) const {
        return static_cast<std::size_t>(static_cast<const char*>(pointer) - base);
    }
};

class Memory {
public:
    void* allocate(Space space, std::size_t bytes);  // null when it does not fit
    // False when the pointer is not the start of a live allocation of that space.
    bool release(Space space, void* pointer);

    // The allocation that the pointer points into, or just past: an empty tensor may end there.
    const Allocation* find(const void* pointer) const;
    const Allocation* find_freed(const void* pointer) const;
    Allocation* starting_at(Space space, const void* pointer);

    bool is_device(const void* pointer) const;
    bool is_pinned(const void* pointer) const;
    // The whole range lies inside one live allocation.
    bool holds(const void* pointer, std::size_t bytes) const;

    std::size_t bytes_in_use(Space space) const { return bytes_[index(space)]; }
    std::size_t count(Space space) const { return counts_[index(space)]; }

    std::string describe(const void* pointer) const;  // "dev:alloc#2+16", "host:alloc#1+0"
    void clear();

private:
    static std::size_t index(Space space) { return static_cast<std::size_t>(space); }
    void retire(const Allocation& allocation);

    std::map<std::uintptr_t, Allocation> live_;
    std::map<std::uintptr_t, Allocation> freed_;
    std::deque<std::uintptr_t> freed_order_;
    std::size_t freed_bytes_ = 0;
    std::size_t bytes_[2] = {0, 0};
    std::size_t counts_[2] = {0, 0};
    std::uint64_t numbers_[2] = {0, 0};
};

Memory& memory();

constexpr int poison_byte = 0xFF;

}  // namespace emulator
