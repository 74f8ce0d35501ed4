#include "block.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "memory.h"
#include "settings.h"

namespace emulator {
namespace {

constexpr unsigned max_lanes = 64;
constexpr std::size_t max_exchange_bytes = 16;
constexpr std::size_t shared_guard_bytes = 64;

struct Wave {
    unsigned going = 0;    // lanes that have neither exited nor stopped to wait
    unsigned live = 0;     // lanes that have not exited
    unsigned parity = 0;   // which half of the slots the next exchange uses
    std::uint64_t met = 0;                // lanes waiting in the current exchange
    std::vector<unsigned> waiting;        // their fibers
    std::array<std::uint64_t, 2> taking_part{};
    // Two halves, because slow lanes still read one exchange while fast ones write the next.
    std::array<std::array<std::array<char, max_exchange_bytes>, max_lanes>, 2> slots;
};

class BlockRunner {
public:
    bool run(const EmulatorModule& module, const EmulatorKernel& kernel, const char* arguments,
             const LaunchShape& shape);

    bool next_thread();
    void barrier();
    std::uint64_t exchange(const void* mine, std::size_t bytes, unsigned source, void* theirs);
    unsigned lane() const { return thread_of_[current_] % wavefront_; }

private:
    static constexpr unsigned no_thread = ~0u;

    void run_block();
    void run_fiber(unsigned fiber);
    void stop_here();
    void set_thread_index(unsigned thread);
    Wave& wave_of(unsigned thread) { return waves_[thread / wavefront_]; }
    void lane_stopped(Wave& wave);
    void release_barrier_if_complete();
    static void fiber_main();

    const EmulatorModule* module_ = nullptr;
    const EmulatorKernel* kernel_ = nullptr;
    const char* arguments_ = nullptr;
    LaunchShape shape_;
    unsigned wavefront_ = max_lanes;
    bool reverse_threads_ = false;

    unsigned threads_ = 0;
    unsigned started_ = 0;
    unsigned live_ = 0;
    std::vector<Wave> waves_;
    std::vector<unsigned> at_barrier_;  // fibers
    std::deque<unsigned> ready_;        // fibers that may go on
    std::vector<unsigned> idle_;        // fibers without a thread
    unsigned current_ = 0;
    std::vector<unsigned> thread_of_;  // by fiber
    std::vector<std::unique_ptr<Fiber>> fibers_;
};

BlockRunner& runner() {
    static BlockRunner instance;
    return instance;
}

void BlockRunner::fiber_main() {
    BlockRunner& self = runner();
    for (;;) {
        self.kernel_->run(self.arguments_);
        self.idle_.push_back(self.current_);
        self.stop_here();
    }
}

bool BlockRunner::run(const EmulatorModule& module, const EmulatorKernel& kernel,
                      const char* arguments, const LaunchShape& shape) {
    module_ = &module;
    kernel_ = &kernel;
    arguments_ = arguments;
    shape_ = shape;
    threads_ = static_cast<unsigned>(shape.block.count());
    wavefront_ = settings().wavefront;
    waves_.resize((threads_ + wavefront_ - 1) / wavefront_);
    const bool reverse_blocks = shape.seed & 1;
    reverse_threads_ = shape.seed & 2;

    const unsigned dims[] = {shape.block.x, shape.block.y, shape.block.z};
    const unsigned grid[] = {shape.grid.x, shape.grid.y, shape.grid.z};
    std::copy_n(dims, 3, module.block_dim);
    std::copy_n(grid, 3, module.grid_dim);
    *module.wavefront = static_cast<int>(wavefront_);

    char* const guard = module.dynamic_shared + shape.dynamic_shared;
    std::memset(guard, poison_byte, shared_guard_bytes);
    const std::uint64_t blocks = shape.grid.count();
    for (std::uint64_t i = 0; i < blocks; ++i) {
        const std::uint64_t block = reverse_blocks ? blocks - 1 - i : i;
        module.block_index[0] = static_cast<unsigned>(block % shape.grid.x);
        module.block_index[1] = static_cast<unsigned>(block / shape.grid.x % shape.grid.y);
        module.block_index[2] = static_cast<unsigned>(block / shape.grid.x / shape.grid.y);
        run_block();
    }
    return std::all_of(guard, guard + shared_guard_bytes,
                       [](char byte) { return byte == static_cast<char>(poison_byte); });
}

void BlockRunner::run_block() {
    // Shared memory starts out undefined.
    std::memset(module_->dynamic_shared, poison_byte, shape_.dynamic_shared);
    if (module_->shared_begin) {
        std::memset(module_->shared_begin, poison_byte,
                    static_cast<std::size_t>(module_->shared_end - module_->shared_begin));
    }
    started_ = 0;
    live_ = threads_;
    for (std::size_t i = 0; i < waves_.size(); ++i) {
        const unsigned first = static_cast<unsigned>(i) * wavefront_;
        waves_[i].live = waves_[i].going = std::min(wavefront_, threads_ - first);
    }
    while (live_ > 0) {
        if (!ready_.empty()) {
            const unsigned fiber = ready_.front();
            ready_.pop_front();
            run_fiber(fiber);
        } else {
            if (idle_.empty()) {
                idle_.push_back(static_cast<unsigned>(fibers_.size()));
                fibers_.push_back(std::make_unique<Fiber>(fiber_main));
                thread_of_.push_back(no_thread);
            }
            const unsigned fiber = idle_.back();
            idle_.pop_back();
            run_fiber(fiber);
        }
    }
}

void BlockRunner::run_fiber(unsigned fiber) {
    current_ = fiber;
    if (thread_of_[fiber] != no_thread) set_thread_index(thread_of_[fiber]);
    fibers_[fiber]->enter();
}

void BlockRunner::stop_here() { fibers_[current_]->leave(); }

void BlockRunner::set_thread_index(unsigned thread) {
    module_->thread_index[0] = thread % shape_.block.x;
    module_->thread_index[1] = thread / shape_.block.x % shape_.block.y;
    module_->thread_index[2] = thread / shape_.block.x / shape_.block.y;
}

// Called by the loop in EmulatorKernel::run before each thread: the one before it has exited.
bool BlockRunner::next_thread() {
    unsigned& thread = thread_of_[current_];
    if (thread != no_thread) {
        Wave& wave = wave_of(thread);
        --live_;
        --wave.live;
        thread = no_thread;
        lane_stopped(wave);
        release_barrier_if_complete();
    }
    if (started_ == threads_) return false;
    thread = reverse_threads_ ? threads_ - 1 - started_ : started_;
    ++started_;
    set_thread_index(thread);
    return true;
}

// A lane exited or waits: the exchange of its wavefront may be complete.
void BlockRunner::lane_stopped(Wave& wave) {
    if (--wave.going > 0 || wave.waiting.empty()) return;
    wave.taking_part[wave.parity] = wave.met;
    wave.parity ^= 1;
    wave.met = 0;
    wave.going = static_cast<unsigned>(wave.waiting.size());
    ready_.insert(ready_.end(), wave.waiting.begin(), wave.waiting.end());
    wave.waiting.clear();
}

void BlockRunner::release_barrier_if_complete() {
    if (at_barrier_.empty() || at_barrier_.size() < live_) return;
    for (Wave& wave : waves_) wave.going = wave.live;
    ready_.insert(ready_.end(), at_barrier_.begin(), at_barrier_.end());
    at_barrier_.clear();
}

void BlockRunner::barrier() {
    Wave& wave = wave_of(thread_of_[current_]);
    at_barrier_.push_back(current_);
    lane_stopped(wave);
    release_barrier_if_complete();
    stop_here();
}

std::uint64_t BlockRunner::exchange(const void* mine, std::size_t bytes, unsigned source,
                                    void* theirs) {
    Wave& wave = wave_of(thread_of_[current_]);
    const unsigned half = wave.parity;
    const unsigned own = lane();
    std::memcpy(wave.slots[half][own].data(), mine, bytes);
    wave.met |= std::uint64_t{1} << own;
    wave.waiting.push_back(current_);
    lane_stopped(wave);
    stop_here();
    const std::uint64_t taking_part = wave.taking_part[half];
    if (taking_part >> source & 1) {
        std::memcpy(theirs, wave.slots[half][source].data(), bytes);
    } else {
        std::memset(theirs, poison_byte, bytes);  // reading an inactive lane is undefined
    }
    return taking_part;
}

}  // namespace

bool run_kernel(const EmulatorModule& module, const EmulatorKernel& kernel, const char* arguments,
                const LaunchShape& shape) {
    return runner().run(module, kernel, arguments, shape);
}

const EmulatorRuntime& kernel_runtime() {
    static const EmulatorRuntime services = {
        [] { return runner().next_thread(); },
        [] { runner().barrier(); },
        [](const void* mine, std::size_t bytes, unsigned source, void* theirs) {
            return static_cast<unsigned long long>(
                runner().exchange(mine, bytes, source, theirs));
        },
        [] { return runner().lane(); },
    };
    return services;
}

}  // namespace emulator
