// The device's engine: a graph of commands and the adversary who picks which one runs next.
//
// Everything that orders work (streams, events, the NULL stream, graph edges) has become an edge
// between two commands before it gets here. Nothing runs until the host waits; then any command
// whose predecessors have finished may be next, and the seed decides.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "call.h"

namespace emulator {

struct Command {
    enum class State { queued, running, done };

    std::uint64_t sequence = 0;  // issue order
    std::int64_t lane = 0;       // the stream, or the branch of a graph launch, it was issued to
    std::string label;
    std::function<void()> work;  // empty for a marker such as an event record
    bool unlocked = false;       // host functions run without the lock
    State state = State::queued;
    std::chrono::steady_clock::time_point finished;
    std::size_t unmet = 0;
    std::vector<std::shared_ptr<Command>> predecessors;  // those that had not finished at issue
    std::vector<Command*> dependents;

    bool done() const { return state == State::done; }
};
using CommandPtr = std::shared_ptr<Command>;

constexpr std::int64_t every_lane = -1;

class Scheduler {
public:
    // Takes a command whose lane, label and work are set. Null and finished predecessors are
    // ignored.
    CommandPtr enqueue(Command command, const std::vector<CommandPtr>& predecessors, Lock& lock);

    void wait(const CommandPtr& target, Lock& lock);  // a null target is done
    void wait_all(Lock& lock);
    // What a query does: perhaps one step towards the target. True when it is done.
    bool poll(const CommandPtr& target, Lock& lock);

    std::int64_t new_lane() { return next_lane_++; }  // lanes that are not streams
    std::size_t pending() const { return pending_.size(); }

    void hang(std::int64_t lane);
    void resume();

    // An error found while a command ran: every later wait and launch returns it.
    void fail(hipError_t status, const std::string& why);
    hipError_t failure() const { return failure_; }

    void clear();

private:
    // How the commands of one wait are ordered; drawn from the seed.
    struct Tactic {
        enum class Order { newest_first, lane_priority, starve_command, random } order;
        bool only_required;    // leave alone what the wait does not need
        std::uint64_t victim;  // the command that starves
        std::uint64_t salt;
    };
    using Required = std::set<const Command*>;

    Tactic draw_tactic();
    Required required_for(const CommandPtr& target) const;
    std::vector<CommandPtr> candidates(const Required* only) const;
    CommandPtr pick(const std::vector<CommandPtr>& ready, const Tactic& tactic);
    // Runs one command; false when none may run now.
    bool step(const Tactic& tactic, const Required* required, Lock& lock);
    void run(const CommandPtr& command, Lock& lock);
    void run_in_issue_order(Lock& lock);
    bool hung(const Command& command) const;

    std::map<std::uint64_t, CommandPtr> pending_;
    std::map<std::uint64_t, CommandPtr> ready_;
    std::set<std::int64_t> hung_lanes_;
    std::condition_variable progress_;
    std::uint64_t next_sequence_ = 1;
    std::int64_t next_lane_ = first_free_lane;
    std::uint64_t decisions_ = 0;
    std::uint64_t polled_ = 0;  // the command that was asked about last
    Tactic poll_tactic_{Tactic::Order::newest_first, true, 0, 0};
    hipError_t failure_ = hipSuccess;

    static constexpr std::int64_t first_free_lane = std::int64_t{1} << 32;  // after all streams
};

Scheduler& scheduler();

}  // namespace emulator
