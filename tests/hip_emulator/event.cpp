#include "capture.h"
#include "stream.h"

namespace emulator {
namespace {

constexpr unsigned known_flags = hipEventBlockingSync | hipEventDisableTiming |
                                 hipEventInterprocess | hipEventDisableSystemFence |
                                 hipEventReleaseToDevice | hipEventReleaseToSystem;

bool valid_flags(unsigned flags) {
    const unsigned both_releases = hipEventReleaseToDevice | hipEventReleaseToSystem;
    if (flags & ~known_flags) return false;
    if ((flags & both_releases) == both_releases) return false;
    return !(flags & hipEventInterprocess) || (flags & hipEventDisableTiming);
}

hipError_t create(hipEvent_t* handle, unsigned flags) {
    if (!handle || !valid_flags(flags)) return hipErrorInvalidValue;
    const auto event = std::make_shared<Event>();
    event->flags = flags;
    *handle = events().add(event);
    return hipSuccess;
}

void record(Event& event, const std::string& name, Stream& stream, Lock& lock) {
    require_valid_capture(stream);
    if (stream.capture) {
        event.record = nullptr;
        event.capture = stream.capture;
        event.captured = stream.frontier;
        return;
    }
    // Through the stream itself, so that work issued later does not overtake the marker's time.
    event.record = issue(stream, {hipGraphNodeTypeEmpty, "record " + name, {}}, lock);
    event.capture = nullptr;
    event.captured.clear();
}

// The event marks captured work: the stream joins that capture, or is already in it.
void wait_captured(Stream& stream, const Event& event) {
    if (!event.capture->active) {
        reject(hipErrorCapturedEvent, "the event belongs to a capture that has ended");
    }
    if (stream.is_null()) {
        event.capture->invalidate();
        reject(hipErrorStreamCaptureImplicit, "the NULL stream cannot join a capture");
    }
    if (stream.capture && stream.capture != event.capture) {
        stream.capture->invalidate();
        event.capture->invalidate();
        reject(hipErrorStreamCaptureMerge, "two captures cannot be merged");
    }
    if (event.capture->invalidated) throw Failure{hipErrorStreamCaptureInvalidated};
    event.capture->join(stream, event.captured);
}

void wait(Stream& stream, const Event& event, const std::string& name, Lock& lock) {
    require_valid_capture(stream);
    if (event.capture) return wait_captured(stream, event);
    if (stream.capture) {
        stream.capture->invalidate();
        reject(hipErrorStreamCaptureIsolation,
               stream.name() + " captures, but the event was not recorded in the capture");
    }
    if (!event.record) return;  // never recorded: nothing to wait for
    issue(stream, {hipGraphNodeTypeEmpty, "wait " + name, {}}, lock, {event.record});
}

}  // namespace

EventTable& events() {
    static EventTable instance;
    return instance;
}

EventPtr event_of(hipEvent_t handle) {
    EventPtr event = events().find(handle);
    if (!event) reject(hipErrorInvalidHandle, "no such event: " + describe_pointer(handle));
    return event;
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipError_t hipEventCreate(hipEvent_t* event) {
    return hip_call("hipEventCreate", [&] { return create(event, 0); }, out(event));
}

EMULATOR_EXPORT hipError_t hipEventCreateWithFlags(hipEvent_t* event, unsigned flags) {
    return hip_call(
        "hipEventCreateWithFlags", [&] { return create(event, flags); }, out(event), flags);
}

EMULATOR_EXPORT hipError_t hipEventDestroy(hipEvent_t event) {
    return hip_call(
        "hipEventDestroy",
        [&] {
            event_of(event);
            events().remove(event);
            return hipSuccess;
        },
        event);
}

EMULATOR_EXPORT hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream) {
    return hip_call(
        "hipEventRecord",
        [&](Lock& lock) {
            record(*event_of(event), describe_pointer(event), *stream_of(stream), lock);
            return hipSuccess;
        },
        event, stream);
}

EMULATOR_EXPORT hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event,
                                              unsigned flags) {
    return hip_call(
        "hipStreamWaitEvent",
        [&](Lock& lock) {
            if (flags != 0) return hipErrorInvalidValue;
            wait(*stream_of(stream), *event_of(event), describe_pointer(event), lock);
            return hipSuccess;
        },
        stream, event, flags);
}

EMULATOR_EXPORT hipError_t hipEventQuery(hipEvent_t event) {
    return hip_call(
        "hipEventQuery",
        [&](Lock& lock) {
            const EventPtr found = event_of(event);
            forbid_waiting_for(*found);
            forbid_while_capturing("hipEventQuery");
            if (!scheduler().poll(found->record, lock)) return hipErrorNotReady;
            return scheduler().failure();
        },
        event);
}

EMULATOR_EXPORT hipError_t hipEventSynchronize(hipEvent_t event) {
    return hip_call(
        "hipEventSynchronize",
        [&](Lock& lock) {
            const EventPtr found = event_of(event);
            forbid_waiting_for(*found);
            forbid_while_capturing("hipEventSynchronize");
            synchronize(found->record, lock);
            return hipSuccess;
        },
        event);
}

EMULATOR_EXPORT hipError_t hipEventElapsedTime(float* milliseconds, hipEvent_t start,
                                               hipEvent_t stop) {
    return hip_call(
        "hipEventElapsedTime",
        [&] {
            const EventPtr first = event_of(start);
            const EventPtr last = event_of(stop);
            if (!milliseconds) return hipErrorInvalidValue;
            if (first->capture || last->capture) return hipErrorCapturedEvent;
            if (!first->timed() || !last->timed() || !first->record || !last->record) {
                return hipErrorInvalidHandle;
            }
            if (!first->record->done() || !last->record->done()) return hipErrorNotReady;
            using Milliseconds = std::chrono::duration<float, std::milli>;
            *milliseconds = Milliseconds(last->record->finished - first->record->finished).count();
            return hipSuccess;
        },
        out(milliseconds), start, stop);
}
