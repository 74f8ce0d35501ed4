// The emulator's own functions: settings, faults, hanging, traces, counts, reset.
#include "blas.h"
#include "blaslt.h"
#include "capture.h"
#include "launch.h"
#include "memory.h"
#include "module.h"
#include "program.h"

using namespace emulator;

EMULATOR_EXPORT void emulatorSetSeed(std::uint64_t seed) {
    const Lock lock(state_mutex());
    settings().seed = seed;
}

// 0, or -1 when it is neither "adversarial" nor "eager".
EMULATOR_EXPORT int emulatorSetSchedule(const char* name) {
    const Lock lock(state_mutex());
    const Schedule* schedule = name ? schedule_named(name) : nullptr;
    if (!schedule) return -1;
    settings().schedule = *schedule;
    return 0;
}

EMULATOR_EXPORT void emulatorSetMemory(std::uint64_t bytes) {
    const Lock lock(state_mutex());
    settings().memory_bytes = bytes;
}

// 0, or -1 when it is neither 32 nor 64. Code compiled before does not load any more.
EMULATOR_EXPORT int emulatorSetWavefront(unsigned lanes) {
    const Lock lock(state_mutex());
    if (lanes != 32 && lanes != 64) return -1;
    settings().wavefront = lanes;
    return 0;
}

// 0, or -1 when the text is malformed. Calls are counted from here.
EMULATOR_EXPORT int emulatorFail(const char* faults_text) {
    const Lock lock(state_mutex());
    return faults().set(faults_text ? faults_text : "") ? 0 : -1;
}

// The device stops working on the stream of that number (0 is the NULL stream), or with -1 at all.
EMULATOR_EXPORT void emulatorHang(int stream_number) {
    const Lock lock(state_mutex());
    scheduler().hang(stream_number);
}

EMULATOR_EXPORT void emulatorResume() {
    const Lock lock(state_mutex());
    scheduler().resume();
}

// Commands issued that have not run.
EMULATOR_EXPORT std::uint64_t emulatorPending() {
    const Lock lock(state_mutex());
    return scheduler().pending();
}

EMULATOR_EXPORT void emulatorTraceStart() {
    const Lock lock(state_mutex());
    call_trace().start();
    execution_log().start();
}

// The calls since the start or the last take: bytes needed with the final NUL. When they fit in
// `capacity` they are copied and forgotten.
EMULATOR_EXPORT std::size_t emulatorTraceTake(char* text, std::size_t capacity) {
    const Lock lock(state_mutex());
    return call_trace().take(text, capacity);
}

// The same for the commands in the order in which they ran.
EMULATOR_EXPORT std::size_t emulatorExecutionTake(char* text, std::size_t capacity) {
    const Lock lock(state_mutex());
    return execution_log().take(text, capacity);
}

// Live objects, in this order: device allocations, device bytes, pinned allocations, pinned bytes,
// streams, events, graphs, executable graphs, modules, hipBLAS handles, hipBLASLt objects,
// hiprtc programs.
EMULATOR_EXPORT void emulatorLiveCounts(std::int64_t counts[12]) {
    const Lock lock(state_mutex());
    const std::size_t lt_objects =
        lt_handles().size() + matmul_descs().size() + layouts().size() + preferences().size();
    const std::size_t values[12] = {
        memory().count(Space::device), memory().bytes_in_use(Space::device),
        memory().count(Space::pinned), memory().bytes_in_use(Space::pinned),
        streams().size(),              events().size(),
        graphs().size(),               execs().size(),
        modules().size(),              blas_handles().size(),
        lt_objects,                    programs().size(),
    };
    for (std::size_t i = 0; i < std::size(values); ++i) {
        counts[i] = static_cast<std::int64_t>(values[i]);
    }
}

// As if the process had just started: nothing is alive, settings are the environment's again.
EMULATOR_EXPORT void emulatorReset() {
    const Lock lock(state_mutex());
    scheduler().clear();
    clear_captures();
    clear_streams();
    events().clear();
    execs().clear();
    graphs().clear();
    nodes().clear();
    functions().clear();
    modules().clear();
    programs().clear();
    blas_handles().clear();
    lt_handles().clear();
    matmul_descs().clear();
    layouts().clear();
    preferences().clear();
    memory().clear();
    reset_launches();
    call_trace().stop();
    execution_log().stop();
    settings() = Settings::from_environment();
    faults() = Faults::from_environment();
    forget_last_error();
}
