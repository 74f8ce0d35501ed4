#include "scheduler.h"

#include <algorithm>

namespace emulator {

CommandPtr Scheduler::enqueue(Command command, const std::vector<CommandPtr>& predecessors,
                              Lock& lock) {
    auto added = std::make_shared<Command>(std::move(command));
    added->sequence = next_sequence_++;
    for (const CommandPtr& predecessor : predecessors) {
        if (!predecessor || predecessor->done()) continue;
        predecessor->dependents.push_back(added.get());
        added->predecessors.push_back(predecessor);
    }
    added->unmet = added->predecessors.size();
    pending_[added->sequence] = added;
    if (added->unmet == 0) ready_[added->sequence] = added;
    if (settings().schedule == Schedule::eager) run_in_issue_order(lock);
    return added;
}

void Scheduler::run_in_issue_order(Lock& lock) {
    for (;;) {
        const std::vector<CommandPtr> ready = candidates(nullptr);
        if (ready.empty()) return;
        run(ready.front(), lock);
    }
}

// Seed 0 is plain: the newest command first, and nothing that the wait does not require. Other
// seeds mix in unrelated work that runs first, random priorities of the lanes (what probabilistic
// concurrency testing does to threads), a command that is put off for as long as possible, and
// plain chance.
Scheduler::Tactic Scheduler::draw_tactic() {
    const std::uint64_t draw = mix(settings().seed, ++decisions_);
    Tactic tactic{Tactic::Order::newest_first, true, 0, draw};
    if (settings().seed == 0) return tactic;
    tactic.only_required = draw & 1;
    using Order = Tactic::Order;
    static constexpr Order orders[] = {
        Order::newest_first,  Order::newest_first,  Order::newest_first,   Order::lane_priority,
        Order::lane_priority, Order::lane_priority, Order::starve_command, Order::random,
    };
    tactic.order = orders[(draw >> 1) % std::size(orders)];
    if (!pending_.empty()) {
        auto victim = pending_.begin();
        std::advance(victim, (draw >> 8) % pending_.size());
        tactic.victim = victim->second->sequence;
    }
    return tactic;
}

Scheduler::Required Scheduler::required_for(const CommandPtr& target) const {
    Required required;
    std::vector<const Command*> open{target.get()};
    while (!open.empty()) {
        const Command* command = open.back();
        open.pop_back();
        if (command->done() || !required.insert(command).second) continue;
        for (const CommandPtr& before : command->predecessors) open.push_back(before.get());
    }
    return required;
}

bool Scheduler::hung(const Command& command) const {
    return hung_lanes_.count(every_lane) || hung_lanes_.count(command.lane);
}

std::vector<CommandPtr> Scheduler::candidates(const Required* only) const {
    std::vector<CommandPtr> result;
    for (const auto& [sequence, command] : ready_) {
        if (hung(*command) || (only && !only->count(command.get()))) continue;
        result.push_back(command);
    }
    return result;
}

CommandPtr Scheduler::pick(const std::vector<CommandPtr>& ready, const Tactic& tactic) {
    const auto lane_priority = [&tactic](const CommandPtr& a, const CommandPtr& b) {
        return mix(tactic.salt, static_cast<std::uint64_t>(a->lane)) <
               mix(tactic.salt, static_cast<std::uint64_t>(b->lane));
    };
    switch (tactic.order) {
        case Tactic::Order::lane_priority:
            return *std::max_element(ready.begin(), ready.end(), lane_priority);
        case Tactic::Order::random: return ready[mix(tactic.salt, ++decisions_) % ready.size()];
        case Tactic::Order::starve_command:
            if (ready.back()->sequence == tactic.victim && ready.size() > 1) {
                return ready[ready.size() - 2];
            }
            return ready.back();
        case Tactic::Order::newest_first: return ready.back();
    }
    return ready.back();
}

bool Scheduler::step(const Tactic& tactic, const Required* required, Lock& lock) {
    const std::vector<CommandPtr> ready = candidates(tactic.only_required ? required : nullptr);
    if (ready.empty()) return false;
    run(pick(ready, tactic), lock);
    return true;
}

void Scheduler::run(const CommandPtr& command, Lock& lock) {
    ready_.erase(command->sequence);
    command->state = Command::State::running;
    if (execution_log().active()) execution_log().add(command->label);
    if (command->work) {
        if (command->unlocked) lock.unlock();
        command->work();
        if (command->unlocked) lock.lock();
    }
    command->work = nullptr;  // lets go of staged bytes and modules
    command->state = Command::State::done;
    command->finished = std::chrono::steady_clock::now();
    command->predecessors.clear();
    for (Command* dependent : command->dependents) {
        if (--dependent->unmet == 0) ready_[dependent->sequence] = pending_.at(dependent->sequence);
    }
    command->dependents.clear();
    pending_.erase(command->sequence);
    progress_.notify_all();
}

void Scheduler::wait(const CommandPtr& target, Lock& lock) {
    if (!target || target->done()) return;
    const Tactic tactic = draw_tactic();
    const Required required = required_for(target);
    while (!target->done()) {
        // No step: the device hangs, or another thread is inside a host function.
        if (!step(tactic, &required, lock)) progress_.wait(lock);
    }
}

void Scheduler::wait_all(Lock& lock) {
    const Tactic tactic = draw_tactic();
    const std::uint64_t end = next_sequence_;
    while (!pending_.empty() && pending_.begin()->first < end) {
        if (!step(tactic, nullptr, lock)) progress_.wait(lock);
    }
}

bool Scheduler::poll(const CommandPtr& target, Lock& lock) {
    if (!target || target->done()) return true;
    // One tactic for all queries about a command: drawn anew each time, they would average out.
    if (polled_ != target->sequence) {
        polled_ = target->sequence;
        poll_tactic_ = draw_tactic();
    }
    const bool no_progress = mix(poll_tactic_.salt, ++decisions_) & 1;
    if (no_progress) return false;
    const Required required = required_for(target);
    step(poll_tactic_, &required, lock);
    return target->done();
}

void Scheduler::hang(std::int64_t lane) { hung_lanes_.insert(lane); }

void Scheduler::resume() {
    hung_lanes_.clear();
    progress_.notify_all();
}

void Scheduler::fail(hipError_t status, const std::string& why) {
    complain(status_name(status) + ": " + why);
    if (failure_ == hipSuccess) failure_ = status;
}

void Scheduler::clear() {
    // A thread that still waits for one of them must not wait for ever.
    for (const auto& [sequence, command] : pending_) command->state = Command::State::done;
    pending_.clear();
    ready_.clear();
    hung_lanes_.clear();
    next_sequence_ = 1;
    next_lane_ = first_free_lane;
    decisions_ = 0;
    polled_ = 0;
    failure_ = hipSuccess;
    progress_.notify_all();
}

Scheduler& scheduler() {
    // Never destroyed: commands that hang hold on to what would be destroyed before it.
    static Scheduler& instance = *new Scheduler;
    return instance;
}

}  // namespace emulator
