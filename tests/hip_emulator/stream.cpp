#include "stream.h"

#include <algorithm>

#include "capture.h"

namespace emulator {
namespace {

StreamPtr null_stream = std::make_shared<Stream>();

// Destroyed blocking streams whose work may not have finished: the NULL stream still follows it.
std::vector<CommandPtr> orphaned_tails;

// hipStreamLegacy is a name for the NULL stream.
const auto legacy_handle = reinterpret_cast<hipStream_t>(std::uintptr_t{1});

constexpr int least_priority = 0;
constexpr int greatest_priority = -1;

hipError_t create(hipStream_t* handle, unsigned flags, int priority) {
    if (!handle || (flags & ~hipStreamNonBlocking)) return hipErrorInvalidValue;
    const auto stream = std::make_shared<Stream>();
    stream->number = static_cast<std::int64_t>(streams().next_number());
    stream->flags = flags;
    stream->priority = std::clamp(priority, greatest_priority, least_priority);
    *handle = streams().add(stream);
    return hipSuccess;
}

}  // namespace

StreamTable& streams() {
    static StreamTable instance;
    return instance;
}

StreamPtr stream_of(hipStream_t handle) {
    if (!handle || handle == legacy_handle) return null_stream;
    StreamPtr stream = streams().find(handle);
    if (!stream) reject(hipErrorInvalidHandle, "no such stream: " + describe_pointer(handle));
    return stream;
}

std::vector<CommandPtr> order_after(const Stream& stream) {
    std::vector<CommandPtr> result{stream.tail};
    if (stream.blocking()) result.push_back(null_stream->tail);
    if (stream.is_null()) {
        for (const auto& [number, other] : streams().objects()) {
            if (other->blocking()) result.push_back(other->tail);
        }
        result.insert(result.end(), orphaned_tails.begin(), orphaned_tails.end());
    }
    return result;
}

CommandPtr issue(Stream& stream, Operation operation, Lock& lock,
                 std::vector<CommandPtr> also_after) {
    forbid_implicit_dependency(stream);
    const std::vector<CommandPtr> after = order_after(stream);
    also_after.insert(also_after.end(), after.begin(), after.end());
    Command command;
    command.lane = stream.number;
    command.label = stream.name() + ' ' + operation.label;
    command.work = std::move(operation.work);
    command.unlocked = operation.unlocked;
    stream.tail = scheduler().enqueue(std::move(command), also_after, lock);
    if (stream.is_null()) orphaned_tails.clear();
    return stream.tail;
}

void submit(Stream& stream, Operation operation, Lock& lock) {
    if (scheduler().failure() != hipSuccess) throw Failure{scheduler().failure()};
    require_valid_capture(stream);
    if (stream.capture) {
        stream.frontier = {stream.capture->graph->add(std::move(operation), stream.frontier)};
    } else {
        issue(stream, std::move(operation), lock);
    }
}

void synchronize(const CommandPtr& target, Lock& lock) {
    scheduler().wait(target, lock);
    if (scheduler().failure() != hipSuccess) throw Failure{scheduler().failure()};
}

void synchronize_device(Lock& lock) {
    scheduler().wait_all(lock);
    if (scheduler().failure() != hipSuccess) throw Failure{scheduler().failure()};
}

void clear_streams() {
    streams().clear();
    null_stream = std::make_shared<Stream>();
    orphaned_tails.clear();
}

}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipError_t hipStreamCreate(hipStream_t* stream) {
    return hip_call(
        "hipStreamCreate", [&] { return create(stream, hipStreamDefault, 0); }, out(stream));
}

EMULATOR_EXPORT hipError_t hipStreamCreateWithFlags(hipStream_t* stream, unsigned flags) {
    return hip_call(
        "hipStreamCreateWithFlags", [&] { return create(stream, flags, 0); }, out(stream), flags);
}

EMULATOR_EXPORT hipError_t hipStreamCreateWithPriority(hipStream_t* stream, unsigned flags,
                                                       int priority) {
    return hip_call(
        "hipStreamCreateWithPriority", [&] { return create(stream, flags, priority); },
        out(stream), flags, priority);
}

EMULATOR_EXPORT hipError_t hipDeviceGetStreamPriorityRange(int* least, int* greatest) {
    return hip_call(
        "hipDeviceGetStreamPriorityRange",
        [&] {
            if (least) *least = least_priority;
            if (greatest) *greatest = greatest_priority;
            return hipSuccess;
        },
        out(least), out(greatest));
}

EMULATOR_EXPORT hipError_t hipStreamGetFlags(hipStream_t stream, unsigned* flags) {
    return hip_call(
        "hipStreamGetFlags",
        [&] {
            if (!flags) return hipErrorInvalidValue;
            *flags = stream_of(stream)->flags;
            return hipSuccess;
        },
        stream, out(flags));
}

EMULATOR_EXPORT hipError_t hipStreamGetPriority(hipStream_t stream, int* priority) {
    return hip_call(
        "hipStreamGetPriority",
        [&] {
            if (!priority) return hipErrorInvalidValue;
            *priority = stream_of(stream)->priority;
            return hipSuccess;
        },
        stream, out(priority));
}

// Returns at once, like CUDA's; queued work still runs.
EMULATOR_EXPORT hipError_t hipStreamDestroy(hipStream_t stream) {
    return hip_call(
        "hipStreamDestroy",
        [&] {
            const StreamPtr found = stream_of(stream);
            if (found->is_null()) return hipErrorInvalidHandle;
            abandon_capture(*found);
            if (found->blocking()) orphaned_tails.push_back(found->tail);
            streams().remove(stream);
            return hipSuccess;
        },
        stream);
}

EMULATOR_EXPORT hipError_t hipStreamSynchronize(hipStream_t stream) {
    return hip_call(
        "hipStreamSynchronize",
        [&](Lock& lock) {
            const StreamPtr found = stream_of(stream);
            forbid_waiting_for(*found);
            forbid_while_capturing("hipStreamSynchronize");
            forbid_implicit_dependency(*found);
            if (found->is_null()) {
                // The NULL stream's last work, and by its rules that of every blocking stream.
                for (const CommandPtr& tail : order_after(*found)) synchronize(tail, lock);
            } else {
                synchronize(found->tail, lock);
            }
            return hipSuccess;
        },
        stream);
}

EMULATOR_EXPORT hipError_t hipStreamQuery(hipStream_t stream) {
    return hip_call(
        "hipStreamQuery",
        [&](Lock& lock) {
            const StreamPtr found = stream_of(stream);
            forbid_waiting_for(*found);
            forbid_while_capturing("hipStreamQuery");
            forbid_implicit_dependency(*found);
            const std::vector<CommandPtr> tails =
                found->is_null() ? order_after(*found) : std::vector<CommandPtr>{found->tail};
            for (const CommandPtr& tail : tails) {
                if (!scheduler().poll(tail, lock)) return hipErrorNotReady;
            }
            return scheduler().failure();
        },
        stream);
}

EMULATOR_EXPORT hipError_t hipDeviceSynchronize() {
    return hip_call("hipDeviceSynchronize", [&](Lock& lock) {
        forbid_any_capture("hipDeviceSynchronize");
        synchronize_device(lock);
        return hipSuccess;
    });
}

EMULATOR_EXPORT hipError_t hipLaunchHostFunc(hipStream_t stream, hipHostFn_t function,
                                             void* user_data) {
    return hip_call(
        "hipLaunchHostFunc",
        [&](Lock& lock) {
            if (!function) return hipErrorInvalidValue;
            const StreamPtr found = stream_of(stream);
            submit(*found,
                   {hipGraphNodeTypeHost, "host function",
                    [function, user_data] { function(user_data); }, /*unlocked=*/true},
                   lock);
            return hipSuccess;
        },
        stream);
}
