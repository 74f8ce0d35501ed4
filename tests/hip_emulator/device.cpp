// The one device: its versions, properties and attributes.
#include <algorithm>
#include <cstring>
#include <map>
#include <string>

#include "call.h"

namespace emulator {
namespace {

constexpr int runtime_version = 70200000;  // 7.2.0: what both wheels are content with
constexpr char device_name[] = "graphexec HIP emulator";
constexpr char architecture[] = "emulator";

constexpr int compute_major = 9;
constexpr int compute_minor = 0;
constexpr int max_threads = 1024;
constexpr int max_grid_x = 2147483647;
constexpr int max_grid_yz = 65536;
constexpr int shared_bytes = 64 << 10;
constexpr int registers = 64 << 10;
constexpr int multiprocessors = 4;
constexpr int clock_khz = 1'000'000;
constexpr int memory_bus_bits = 1024;
constexpr int l2_bytes = 4 << 20;

// hipDeviceProp_t as hipGetDevicePropertiesR0600 fills it. Runs of fields that the emulator leaves
// at zero are arrays here; the offsets asserted below are those of the real structure.
struct DeviceProperties {
    char name[256];
    char uuid[16];
    char luid[8];
    unsigned luid_device_node_mask;
    std::size_t total_global_mem;
    std::size_t shared_mem_per_block;
    int regs_per_block;
    int warp_size;
    std::size_t mem_pitch;
    int max_threads_per_block;
    int max_threads_dim[3];
    int max_grid_size[3];
    int clock_rate;
    std::size_t total_const_mem;
    int major;
    int minor;
    std::size_t texture_alignment;
    std::size_t texture_pitch_alignment;
    int device_overlap;
    int multi_processor_count;
    int kernel_exec_timeout_enabled;
    int integrated;
    int can_map_host_memory;
    int compute_mode;
    int textures_and_surfaces[40];
    std::size_t surface_alignment;
    int concurrent_kernels;
    int ecc_enabled;
    int pci[3];
    int tcc_driver;
    int async_engine_count;
    int unified_addressing;
    int memory_clock_rate;
    int memory_bus_width;
    int l2_cache_size;
    int persisting_l2_cache_max_size;
    int max_threads_per_multi_processor;
    int stream_priorities_supported;
    int l1_caches[2];
    std::size_t shared_mem_per_multiprocessor;
    int regs_per_multiprocessor;
    int managed_memory;
    int multi_gpu[2];
    int host_native_atomic_supported;
    int single_to_double_precision_perf_ratio;
    int pageable_memory_access;
    int concurrent_managed_access;
    int compute_preemption_supported;
    int can_use_host_pointer_for_registered_mem;
    int cooperative_launch[2];
    std::size_t shared_mem_per_block_optin;
    int pageable_memory_access_uses_host_page_tables;
    int direct_managed_mem_access_from_host;
    int max_blocks_per_multi_processor;
    int access_policy_max_window_size;
    std::size_t reserved_shared_mem_per_block;
    int later_features[13];
    int reserved[63 + 32];
    char gcn_arch_name[256];
    std::size_t max_shared_memory_per_multi_processor;
    int clock_instruction_rate;
    unsigned arch;  // 17 one-bit features
    unsigned* hdp_flush[2];
    int cooperative_multi_device[4];
    int is_large_bar;
    int asic_revision;
};

DeviceProperties properties() {
    DeviceProperties p{};
    std::strcpy(p.name, device_name);
    std::strcpy(p.gcn_arch_name, architecture);
    p.total_global_mem = settings().memory_bytes;
    p.shared_mem_per_block = shared_bytes;
    p.regs_per_block = registers;
    p.warp_size = static_cast<int>(settings().wavefront);
    p.mem_pitch = 2147483647;
    p.max_threads_per_block = max_threads;
    std::fill_n(p.max_threads_dim, 3, max_threads);
    p.max_grid_size[0] = max_grid_x;
    p.max_grid_size[1] = p.max_grid_size[2] = max_grid_yz;
    p.clock_rate = clock_khz;
    p.total_const_mem = 2147483647;
    p.major = compute_major;
    p.minor = compute_minor;
    p.multi_processor_count = multiprocessors;
    p.can_map_host_memory = 1;
    p.concurrent_kernels = 1;
    p.async_engine_count = 1;
    p.unified_addressing = 1;
    p.memory_clock_rate = clock_khz;
    p.memory_bus_width = memory_bus_bits;
    p.l2_cache_size = l2_bytes;
    p.max_threads_per_multi_processor = 2 * max_threads;
    p.stream_priorities_supported = 1;
    p.shared_mem_per_multiprocessor = shared_bytes;
    p.regs_per_multiprocessor = registers;
    p.max_shared_memory_per_multi_processor = shared_bytes;
    p.arch = (1u << 17) - 1;
    return p;
}

// hipDeviceAttribute_t
std::map<int, long long> attributes() {
    return {
        {2, 1},                        // async engine count
        {3, 1},                        // can map host memory
        {5, clock_khz},                // clock rate
        {6, 0},                        // compute mode
        {8, 1},                        // concurrent kernels
        {10, 0},                       // cooperative launch
        {15, 1},                       // host native atomics
        {17, 0},                       // integrated
        {18, 0},                       // kernel execution timeout
        {20, l2_bytes},                // L2 cache
        {23, compute_major},           // compute capability, major
        {24, 0},                       // managed memory
        {25, 2},                       // blocks a multiprocessor
        {26, max_threads},             // block x
        {27, max_threads},             // block y
        {28, max_threads},             // block z
        {29, max_grid_x},              // grid x
        {30, max_grid_yz},             // grid y
        {31, max_grid_yz},             // grid z
        {56, max_threads},             // threads a block
        {57, 2 * max_threads},         // threads a multiprocessor
        {59, memory_bus_bits},         // memory bus
        {60, clock_khz},               // memory clock
        {61, compute_minor},           // compute capability, minor
        {63, multiprocessors},         // multiprocessors
        {65, 0},                       // pageable memory access
        {67, 0},                       // PCI bus
        {68, 0},                       // PCI device
        {69, 0},                       // PCI domain
        {71, registers},               // registers a block
        {72, registers},               // registers a multiprocessor
        {74, shared_bytes},            // shared memory a block
        {75, shared_bytes},            // shared memory a block, opted in
        {76, shared_bytes},            // shared memory a multiprocessor
        {78, 1},                       // stream priorities
        {83, 2147483647},              // constant memory
        {84, static_cast<long long>(settings().memory_bytes)},
        {85, 1},                       // unified addressing
        {87, settings().wavefront},    // warp size
        {88, 1},                       // memory pools
        {10002, shared_bytes},         // shared memory a multiprocessor
        {10015, multiprocessors},      // physical multiprocessors
        {10018, 1},                    // XCCs
    };
}

void require_device(int device) {
    if (device != 0) reject(hipErrorInvalidDevice, "no device " + std::to_string(device));
}

static_assert(offsetof(DeviceProperties, total_global_mem) == 288);
static_assert(offsetof(DeviceProperties, multi_processor_count) == 388);
static_assert(offsetof(DeviceProperties, surface_alignment) == 568);
static_assert(offsetof(DeviceProperties, shared_mem_per_block_optin) == 696);
static_assert(offsetof(DeviceProperties, gcn_arch_name) == 1160);
static_assert(sizeof(DeviceProperties) == 1472);

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hipError_t hipInit(unsigned flags) {
    return hip_call(
        "hipInit", [&] { return flags == 0 ? hipSuccess : hipErrorInvalidValue; }, flags);
}

EMULATOR_EXPORT hipError_t hipRuntimeGetVersion(int* version) {
    return hip_call(
        "hipRuntimeGetVersion",
        [&] {
            if (!version) return hipErrorInvalidValue;
            *version = runtime_version;
            return hipSuccess;
        },
        out(version));
}

EMULATOR_EXPORT hipError_t hipDriverGetVersion(int* version) {
    return hip_call(
        "hipDriverGetVersion",
        [&] {
            if (!version) return hipErrorInvalidValue;
            *version = runtime_version;
            return hipSuccess;
        },
        out(version));
}

EMULATOR_EXPORT hipError_t hipGetDeviceCount(int* count) {
    return hip_call(
        "hipGetDeviceCount",
        [&] {
            if (!count) return hipErrorInvalidValue;
            *count = 1;
            return hipSuccess;
        },
        out(count));
}

EMULATOR_EXPORT hipError_t hipSetDevice(int device) {
    return hip_call(
        "hipSetDevice",
        [&] {
            require_device(device);
            return hipSuccess;
        },
        device);
}

EMULATOR_EXPORT hipError_t hipGetDevice(int* device) {
    return hip_call(
        "hipGetDevice",
        [&] {
            if (!device) return hipErrorInvalidValue;
            *device = 0;
            return hipSuccess;
        },
        out(device));
}

EMULATOR_EXPORT hipError_t hipDeviceGet(int* device, int ordinal) {
    return hip_call(
        "hipDeviceGet",
        [&] {
            require_device(ordinal);
            if (!device) return hipErrorInvalidValue;
            *device = ordinal;
            return hipSuccess;
        },
        out(device), ordinal);
}

EMULATOR_EXPORT hipError_t hipDeviceGetName(char* name, int length, int device) {
    return hip_call(
        "hipDeviceGetName",
        [&] {
            require_device(device);
            if (!name || length <= 0) return hipErrorInvalidValue;
            std::strncpy(name, device_name, static_cast<std::size_t>(length) - 1);
            name[length - 1] = '\0';
            return hipSuccess;
        },
        length, device);
}

EMULATOR_EXPORT hipError_t hipDeviceGetAttribute(int* value, int attribute, int device) {
    return hip_call(
        "hipDeviceGetAttribute",
        [&] {
            require_device(device);
            const std::map<int, long long> known = attributes();
            const auto found = known.find(attribute);
            if (!value || found == known.end()) return hipErrorInvalidValue;
            *value = static_cast<int>(std::min<long long>(found->second, 2147483647));
            return hipSuccess;
        },
        out(value), attribute, device);
}

EMULATOR_EXPORT hipError_t hipGetDevicePropertiesR0600(void* result, int device) {
    return hip_call(
        "hipGetDeviceProperties",
        [&] {
            require_device(device);
            if (!result) return hipErrorInvalidValue;
            const DeviceProperties filled = properties();
            std::memcpy(result, &filled, sizeof filled);
            return hipSuccess;
        },
        device);
}

EMULATOR_EXPORT hipError_t hipDeviceComputeCapability(int* major, int* minor, int device) {
    return hip_call(
        "hipDeviceComputeCapability",
        [&] {
            require_device(device);
            if (!major || !minor) return hipErrorInvalidValue;
            *major = compute_major;
            *minor = compute_minor;
            return hipSuccess;
        },
        out(major), out(minor), device);
}

EMULATOR_EXPORT hipError_t hipDeviceTotalMem(std::size_t* bytes, int device) {
    return hip_call(
        "hipDeviceTotalMem",
        [&] {
            require_device(device);
            if (!bytes) return hipErrorInvalidValue;
            *bytes = settings().memory_bytes;
            return hipSuccess;
        },
        out(bytes), device);
}
