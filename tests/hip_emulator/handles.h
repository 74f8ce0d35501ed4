// Handles are numbers, not addresses: a kind and a running count that is never used twice.
// A destroyed or invented handle is therefore always recognised, and a trace can name it
// ("stream#3") without looking anything up.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace emulator {

enum class Kind : std::uint64_t {
    stream = 1,
    event,
    graph,
    exec,
    node,
    module,
    function,
    program,
    blas,
    blaslt,
    matmul_desc,
    layout,
    preference,
};

// Above every address a 47-bit user space can hold, so that no pointer looks like a handle.
constexpr std::uint64_t handle_tag = 0x0E01'0000'0000'0000;
constexpr std::uint64_t handle_tag_mask = 0xFFFF'0000'0000'0000;
constexpr int handle_kind_shift = 40;

inline std::uint64_t handle_bits(Kind kind, std::uint64_t number) {
    return handle_tag | static_cast<std::uint64_t>(kind) << handle_kind_shift | number;
}

inline bool is_handle(std::uint64_t bits) { return (bits & handle_tag_mask) == handle_tag; }
inline Kind handle_kind(std::uint64_t bits) {
    return static_cast<Kind>((bits & ~handle_tag_mask) >> handle_kind_shift);
}
inline std::uint64_t handle_number(std::uint64_t bits) {
    return bits & ((std::uint64_t{1} << handle_kind_shift) - 1);
}

std::string handle_name(std::uint64_t bits);  // "stream#3"

// The live objects of one kind.
template <Kind kind, class Handle, class Object>
class Table {
public:
    explicit Table(std::uint64_t first_number = 1) : first_(first_number), next_(first_number) {}

    Handle add(std::shared_ptr<Object> object) {
        const std::uint64_t number = next_++;
        objects_[number] = std::move(object);
        return handle_of(number);
    }

    // Null when the handle was never given out or its object has been destroyed.
    std::shared_ptr<Object> find(Handle handle) const {
        const auto bits = reinterpret_cast<std::uint64_t>(handle);
        if (!is_handle(bits) || handle_kind(bits) != kind) return nullptr;
        const auto found = objects_.find(handle_number(bits));
        return found == objects_.end() ? nullptr : found->second;
    }

    void remove(Handle handle) {
        objects_.erase(handle_number(reinterpret_cast<std::uint64_t>(handle)));
    }

    void clear() {
        objects_.clear();
        next_ = first_;
    }

    std::uint64_t next_number() const { return next_; }
    std::size_t size() const { return objects_.size(); }
    const std::map<std::uint64_t, std::shared_ptr<Object>>& objects() const { return objects_; }

    static Handle handle_of(std::uint64_t number) {
        return reinterpret_cast<Handle>(handle_bits(kind, number));
    }

private:
    std::uint64_t first_;
    std::uint64_t next_;
    std::map<std::uint64_t, std::shared_ptr<Object>> objects_;
};

}  // namespace emulator
