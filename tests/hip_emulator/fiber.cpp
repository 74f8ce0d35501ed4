#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(__x86_64__)

// void switch_stack(void** save, void* load): saves what the System V ABI says a callee keeps.
asm(R"(
.text
.type emulator_switch_stack, @function
emulator_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch_stack, .-emulator_switch_stack
)");

extern "C" __attribute__((visibility("hidden"))) void emulator_switch_stack(void** save,
                                                                             void* load);

#endif

namespace emulator {
namespace {

// Stacks are reserved a power of two apart; without an offset their tops would all compete for the
// same few lines of the cache.
std::size_t next_offset() {
    constexpr std::size_t step = 5 * 64;
    static std::size_t count = 0;
    return count++ * step % (16 << 10);
}

char* reserve_stack(std::size_t bytes) {
    void* stack = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(stack);
}

}  // namespace

Fiber::~Fiber() { munmap(stack_, stack_bytes); }

#if defined(__x86_64__)

Fiber::Fiber(Entry entry) : stack_(reserve_stack(stack_bytes)) {
    // As if emulator_switch_stack had been called by nobody at the start of `entry`: six saved
    // registers, the address to return to, and a stack aligned as after a call.
    auto* top = reinterpret_cast<std::uintptr_t*>(stack_ + stack_bytes - next_offset());
    *--top = 0;
    *--top = reinterpret_cast<std::uintptr_t>(entry);
    for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = 0;
    inside_ = top;
}

void Fiber::enter() { emulator_switch_stack(&outside_, inside_); }
void Fiber::leave() { emulator_switch_stack(&inside_, outside_); }

#else

Fiber::Fiber(Entry entry) : stack_(reserve_stack(stack_bytes)) {
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_;
    inside_.uc_stack.ss_size = stack_bytes - next_offset();
    inside_.uc_link = nullptr;
    makecontext(&inside_, entry, 0);
}

void Fiber::enter() { swapcontext(&outside_, &inside_); }
void Fiber::leave() { swapcontext(&inside_, &outside_); }

#endif

}  // namespace emulator
