#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "settings.h"

namespace emulator {
namespace {

// How much freed memory keeps its address, to recognise pointers into it.
constexpr std::size_t quarantine_bytes = std::size_t{256} << 20;

std::size_t mapped_size(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    // One page more than asked for, so that "just past the end" belongs to nobody else.
    return (bytes / page + 2) * page;
}

void unmap(const Allocation& allocation) { munmap(allocation.base, mapped_size(allocation.bytes)); }

const Allocation* containing(const std::map<std::uintptr_t, Allocation>& allocations,
                             const void* pointer) {
    auto after = allocations.upper_bound(reinterpret_cast<std::uintptr_t>(pointer));
    if (after == allocations.begin()) return nullptr;
    const Allocation& candidate = std::prev(after)->second;
    return candidate.offset_of(pointer) <= candidate.bytes ? &candidate : nullptr;
}

}  // namespace

void* Memory::allocate(Space space, std::size_t bytes) {
    const bool fits = bytes <= settings().memory_bytes &&
                      bytes_[index(Space::device)] <= settings().memory_bytes - bytes;
    if (space == Space::device && !fits) return nullptr;
    void* base = mmap(nullptr, mapped_size(bytes), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    std::memset(base, poison_byte, bytes);
    Allocation allocation;
    allocation.number = ++numbers_[index(space)];
    allocation.space = space;
    allocation.base = static_cast<char*>(base);
    allocation.bytes = bytes;
    live_[reinterpret_cast<std::uintptr_t>(base)] = allocation;
    bytes_[index(space)] += bytes;
    ++counts_[index(space)];
    return base;
}

bool Memory::release(Space space, void* pointer) {
    const Allocation* found = starting_at(space, pointer);
    if (!found) return false;
    const Allocation allocation = *found;
    live_.erase(reinterpret_cast<std::uintptr_t>(pointer));
    bytes_[index(space)] -= allocation.bytes;
    --counts_[index(space)];
    retire(allocation);
    return true;
}

void Memory::retire(const Allocation& allocation) {
    std::memset(allocation.base, poison_byte, allocation.bytes);
    const auto key = reinterpret_cast<std::uintptr_t>(allocation.base);
    freed_[key] = allocation;
    freed_order_.push_back(key);
    freed_bytes_ += allocation.bytes;
    while (freed_bytes_ > quarantine_bytes) {
        const auto oldest = freed_.find(freed_order_.front());
        freed_bytes_ -= oldest->second.bytes;
        unmap(oldest->second);
        freed_.erase(oldest);
        freed_order_.pop_front();
    }
}

const Allocation* Memory::find(const void* pointer) const { return containing(live_, pointer); }

const Allocation* Memory::find_freed(const void* pointer) const {
    return find(pointer) ? nullptr : containing(freed_, pointer);
}

Allocation* Memory::starting_at(Space space, const void* pointer) {
    const auto found = live_.find(reinterpret_cast<std::uintptr_t>(pointer));
    return found != live_.end() && found->second.space == space ? &found->second : nullptr;
}

bool Memory::is_device(const void* pointer) const {
    const Allocation* allocation = find(pointer);
    return allocation && allocation->space == Space::device;
}

bool Memory::is_pinned(const void* pointer) const {
    const Allocation* allocation = find(pointer);
    return allocation && allocation->space == Space::pinned;
}

bool Memory::holds(const void* pointer, std::size_t bytes) const {
    const Allocation* allocation = find(pointer);
    return allocation && bytes <= allocation->bytes - allocation->offset_of(pointer);
}

std::string Memory::describe(const void* pointer) const {
    if (const Allocation* allocation = find(pointer)) {
        return std::string(allocation->space == Space::device ? "dev" : "host") + ":alloc#" +
               std::to_string(allocation->number) + '+' +
               std::to_string(allocation->offset_of(pointer));
    }
    if (const Allocation* allocation = find_freed(pointer)) {
        return "freed:alloc#" + std::to_string(allocation->number) + '+' +
               std::to_string(allocation->offset_of(pointer));
    }
    return "pageable";
}

void Memory::clear() {
    for (const auto& [address, allocation] : live_) unmap(allocation);
    for (const auto& [address, allocation] : freed_) unmap(allocation);
    *this = Memory();
}

Memory& memory() {
    static Memory instance;
    return instance;
}

}  // namespace emulator
