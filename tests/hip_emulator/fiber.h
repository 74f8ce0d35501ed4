// A stack that runs a function until it switches away, and can be switched back to.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulator {

class Fiber {
public:
    using Entry = void (*)();

    explicit Fiber(Entry entry);
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    void enter();  // from the thread's own stack; returns when the fiber calls leave()
    void leave();  // from inside the fiber

private:
    static constexpr std::size_t stack_bytes = 256 << 10;  // reserved; pages come when touched

    char* stack_;
#if defined(__x86_64__)
    void* inside_ = nullptr;   // the fiber's stack pointer while it is switched out
    void* outside_ = nullptr;  // the caller's while it is switched in
#else
    ucontext_t inside_;
    ucontext_t outside_;
#endif
};

}  // namespace emulator
