#include "capture.h"

#include <algorithm>

namespace emulator {
namespace {

std::vector<std::shared_ptr<Capture>> captures;  // those that have not ended
std::uint64_t next_capture_id = 1;
thread_local hipStreamCaptureMode thread_mode = hipStreamCaptureModeGlobal;

// The rules of hipThreadExchangeStreamCaptureMode.
bool forbids(const Capture& capture, std::thread::id caller) {
    if (thread_mode == hipStreamCaptureModeRelaxed) return false;
    if (capture.thread == caller) return capture.mode != hipStreamCaptureModeRelaxed;
    return thread_mode == hipStreamCaptureModeGlobal && capture.mode == hipStreamCaptureModeGlobal;
}

void merge(std::vector<std::size_t>& into, const std::vector<std::size_t>& from) {
    into.insert(into.end(), from.begin(), from.end());
    std::sort(into.begin(), into.end());
    into.erase(std::unique(into.begin(), into.end()), into.end());
}

}  // namespace

void Capture::join(Stream& stream, const std::vector<std::size_t>& after) {
    stream.capture = shared_from_this();
    members.insert(&stream);
    merge(stream.frontier, after);
}

void Capture::leave_all() {
    active = false;
    for (Stream* stream : members) {
        stream->frontier.clear();
        stream->capture = nullptr;
    }
    members.clear();
    const auto self = std::find(captures.begin(), captures.end(), shared_from_this());
    if (self != captures.end()) captures.erase(self);
}

bool Capture::has_blocking_member() const {
    return std::any_of(members.begin(), members.end(), [](Stream* s) { return s->blocking(); });
}

void forbid_while_capturing(const char* function) {
    bool forbidden = false;
    for (const auto& capture : captures) {
        if (!forbids(*capture, std::this_thread::get_id())) continue;
        capture->invalidate();
        forbidden = true;
    }
    if (forbidden) {
        reject(hipErrorStreamCaptureUnsupported, std::string(function) + " during stream capture");
    }
}

void forbid_any_capture(const char* function) {
    if (captures.empty()) return;
    for (const auto& capture : captures) capture->invalidate();
    reject(hipErrorStreamCaptureUnsupported, std::string(function) + " during stream capture");
}

void forbid_implicit_dependency(const Stream& stream) {
    if (!stream.is_null()) return;
    bool forbidden = false;
    for (const auto& capture : captures) {
        if (!capture->has_blocking_member()) continue;
        capture->invalidate();
        forbidden = true;
    }
    if (forbidden) {
        reject(hipErrorStreamCaptureImplicit,
               "the NULL stream was used while a blocking stream is capturing");
    }
}

void require_valid_capture(const Stream& stream) {
    if (stream.capture && stream.capture->invalidated) {
        reject(hipErrorStreamCaptureInvalidated, "the capture of " + stream.name() + " is spoiled");
    }
}

void forbid_waiting_for(const Stream& stream) {
    if (!stream.capture) return;
    stream.capture->invalidate();
    reject(hipErrorStreamCaptureUnsupported, "waiting for " + stream.name() + ", which captures");
}

void forbid_waiting_for(const Event& event) {
    if (!event.capture) return;
    event.capture->invalidate();
    reject(hipErrorCapturedEvent, "the event was last recorded in a capture");
}

void abandon_capture(Stream& stream) {
    if (!stream.capture) return;
    const std::shared_ptr<Capture> capture = stream.capture;
    capture->invalidate();
    capture->members.erase(&stream);
    if (capture->origin == &stream) capture->leave_all();
}

void clear_captures() {
    while (!captures.empty()) captures.back()->leave_all();
    next_capture_id = 1;
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipError_t hipStreamBeginCapture(hipStream_t stream, hipStreamCaptureMode mode) {
    return hip_call(
        "hipStreamBeginCapture",
        [&] {
            const StreamPtr origin = stream_of(stream);
            if (mode < hipStreamCaptureModeGlobal || mode > hipStreamCaptureModeRelaxed) {
                return hipErrorInvalidValue;
            }
            if (origin->is_null()) {
                reject(hipErrorStreamCaptureUnsupported, "the NULL stream cannot capture");
            }
            if (origin->capture) return hipErrorIllegalState;
            const auto capture = std::make_shared<Capture>();
            capture->id = next_capture_id++;
            capture->mode = mode;
            capture->thread = std::this_thread::get_id();
            capture->origin = origin.get();
            capture->join(*origin, {});
            captures.push_back(capture);
            return hipSuccess;
        },
        stream, mode);
}

EMULATOR_EXPORT hipError_t hipStreamEndCapture(hipStream_t stream, hipGraph_t* graph) {
    return hip_call(
        "hipStreamEndCapture",
        [&] {
            const StreamPtr origin = stream_of(stream);
            if (!graph) return hipErrorInvalidValue;
            *graph = nullptr;
            const std::shared_ptr<Capture> capture = origin->capture;
            if (!capture) return hipErrorIllegalState;
            if (capture->origin != origin.get()) {
                capture->invalidate();
                return hipErrorStreamCaptureUnmatched;
            }
            if (capture->mode != hipStreamCaptureModeRelaxed &&
                capture->thread != std::this_thread::get_id()) {
                return hipErrorStreamCaptureWrongThread;
            }
            const bool joined = std::all_of(
                capture->members.begin(), capture->members.end(), [&](const Stream* member) {
                    return capture->graph->covered(member->frontier, origin->frontier);
                });
            capture->leave_all();
            if (capture->invalidated) return hipErrorStreamCaptureInvalidated;
            if (!joined) return hipErrorStreamCaptureUnjoined;
            *graph = graphs().add(capture->graph);
            return hipSuccess;
        },
        stream, out(graph));
}

namespace {

hipStreamCaptureStatus status_of(const Stream& stream) {
    if (!stream.capture) return hipStreamCaptureStatusNone;
    return stream.capture->invalidated ? hipStreamCaptureStatusInvalidated
                                       : hipStreamCaptureStatusActive;
}

}  // namespace

EMULATOR_EXPORT hipError_t hipStreamIsCapturing(hipStream_t stream,
                                                hipStreamCaptureStatus* status) {
    return hip_call(
        "hipStreamIsCapturing",
        [&] {
            const StreamPtr found = stream_of(stream);
            if (!status) return hipErrorInvalidValue;
            forbid_implicit_dependency(*found);
            *status = status_of(*found);
            return hipSuccess;
        },
        stream, out(status));
}

EMULATOR_EXPORT hipError_t hipStreamGetCaptureInfo(hipStream_t stream,
                                                   hipStreamCaptureStatus* status,
                                                   unsigned long long* id) {
    return hip_call(
        "hipStreamGetCaptureInfo",
        [&] {
            const StreamPtr found = stream_of(stream);
            if (!status) return hipErrorInvalidValue;
            forbid_implicit_dependency(*found);
            *status = status_of(*found);
            if (id) *id = found->capture ? found->capture->id : 0;
            return hipSuccess;
        },
        stream, out(status), out(id));
}

EMULATOR_EXPORT hipError_t hipThreadExchangeStreamCaptureMode(hipStreamCaptureMode* mode) {
    return hip_call(
        "hipThreadExchangeStreamCaptureMode",
        [&] {
            if (!mode) return hipErrorInvalidValue;
            std::swap(*mode, thread_mode);
            return hipSuccess;
        },
        out(mode));
}
