// Stream capture: which streams take part in which capture, and what it forbids.
#pragma once

#include <set>
#include <thread>

#include "stream.h"

namespace emulator {

struct Capture : std::enable_shared_from_this<Capture> {
    std::uint64_t id = 0;
    hipStreamCaptureMode mode = hipStreamCaptureModeGlobal;
    std::thread::id thread;
    Stream* origin = nullptr;
    std::set<Stream*> members;  // streams that began or joined it
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    bool active = true;  // false once it has ended
    bool invalidated = false;

    void invalidate() { invalidated = true; }
    void join(Stream& stream, const std::vector<std::size_t>& after);
    void leave_all();
    bool has_blocking_member() const;
};

// For a call that may wait for the device or allocate: fails with
// hipErrorStreamCaptureUnsupported, and spoils the capture, when a capture of this thread or a
// global one of another forbids it.
void forbid_while_capturing(const char* function);

// For a call that would wait for every stream: no capture at all may be going on.
void forbid_any_capture(const char* function);

// For work on the legacy NULL stream: it would depend on every capturing blocking stream.
void forbid_implicit_dependency(const Stream& stream);

// Fails when the stream's capture has been spoiled.
void require_valid_capture(const Stream& stream);

// For synchronize and query: fails and spoils the capture when the stream is capturing.
void forbid_waiting_for(const Stream& stream);
void forbid_waiting_for(const Event& event);

// A stream's end: its capture is spoiled.
void abandon_capture(Stream& stream);

void clear_captures();

}  // namespace emulator
