// Streams and events, and how they turn into edges between commands.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph.h"
#include "handles.h"
#include "scheduler.h"

namespace emulator {

struct Capture;

struct Stream {
    std::int64_t number = 0;  // 0 is the legacy NULL stream
    unsigned flags = hipStreamDefault;
    int priority = 0;
    CommandPtr tail;  // the last command issued

    std::shared_ptr<Capture> capture;   // null unless the stream is capturing
    std::vector<std::size_t> frontier;  // the nodes that the next captured node will follow

    bool is_null() const { return number == 0; }
    bool blocking() const { return !is_null() && !(flags & hipStreamNonBlocking); }
    std::string name() const { return is_null() ? "null" : "stream#" + std::to_string(number); }
};
using StreamPtr = std::shared_ptr<Stream>;

struct Event {
    unsigned flags = 0;
    CommandPtr record;  // the most recent one; null if never recorded

    // Set instead of `record` when the most recent record was captured.
    std::shared_ptr<Capture> capture;
    std::vector<std::size_t> captured;  // the nodes it marks

    bool timed() const { return !(flags & hipEventDisableTiming); }
};
using EventPtr = std::shared_ptr<Event>;

using StreamTable = Table<Kind::stream, hipStream_t, Stream>;
using EventTable = Table<Kind::event, hipEvent_t, Event>;
StreamTable& streams();
EventTable& events();

// Fail with hipErrorInvalidHandle when there is no such object.
StreamPtr stream_of(hipStream_t handle);
EventPtr event_of(hipEvent_t handle);

// Everything that work issued to the stream now must come after: its own tail and what the
// legacy NULL stream's rules add.
std::vector<CommandPtr> order_after(const Stream& stream);

// Queues the operation, or captures it when the stream is capturing.
void submit(Stream& stream, Operation operation, Lock& lock);
// The same for a stream known not to be capturing; returns the command.
CommandPtr issue(Stream& stream, Operation operation, Lock& lock,
                 std::vector<CommandPtr> also_after = {});

// Waits as hipStreamSynchronize does; fails with the device's error if there is one.
void synchronize(const CommandPtr& target, Lock& lock);
void synchronize_device(Lock& lock);

void clear_streams();

}  // namespace emulator
