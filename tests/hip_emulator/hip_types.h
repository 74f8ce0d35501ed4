// The types, enumerators and status codes of HIP, hiprtc, hipBLAS and hipBLASLt that the emulator
// uses. Numbers are those of ROCm 7 and 10, as both hip-python wheels pass them.
#pragma once

#include <cstddef>
#include <cstdint>

// Opaque handles. They are never dereferenced: see handles.h.
using hipStream_t = struct ihipStream_t*;
using hipEvent_t = struct ihipEvent_t*;
using hipGraph_t = struct ihipGraph*;
using hipGraphExec_t = struct hipGraphExec*;
using hipGraphNode_t = struct hipGraphNode*;
using hipModule_t = struct ihipModule_t*;
using hipFunction_t = struct ihipModuleSymbol_t*;
using hiprtcProgram = struct _hiprtcProgram*;
using hipHostFn_t = void (*)(void*);

// X(name, value, what hipGetErrorString says)
#define HIP_ERRORS(X)                                                                             \
    X(hipSuccess, 0, "no error")                                                                  \
    X(hipErrorInvalidValue, 1, "invalid argument")                                                \
    X(hipErrorOutOfMemory, 2, "out of memory")                                                    \
    X(hipErrorNotInitialized, 3, "initialization error")                                          \
    X(hipErrorDeinitialized, 4, "driver shutting down")                                           \
    X(hipErrorProfilerDisabled, 5, "profiler disabled while using external profiling tool")       \
    X(hipErrorProfilerNotInitialized, 6, "profiler is not initialized")                           \
    X(hipErrorProfilerAlreadyStarted, 7, "profiler already started")                              \
    X(hipErrorProfilerAlreadyStopped, 8, "profiler already stopped")                              \
    X(hipErrorInvalidConfiguration, 9, "invalid configuration argument")                          \
    X(hipErrorInvalidPitchValue, 12, "invalid pitch argument")                                    \
    X(hipErrorInvalidSymbol, 13, "invalid device symbol")                                         \
    X(hipErrorInvalidDevicePointer, 17, "invalid device pointer")                                 \
    X(hipErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy")                    \
    X(hipErrorInsufficientDriver, 35, "driver version is insufficient for runtime version")       \
    X(hipErrorMissingConfiguration, 52, "__global__ function call is not configured")             \
    X(hipErrorPriorLaunchFailure, 53, "unspecified launch failure in prior launch")               \
    X(hipErrorInvalidDeviceFunction, 98, "invalid device function")                               \
    X(hipErrorNoDevice, 100, "no ROCm-capable device is detected")                                \
    X(hipErrorInvalidDevice, 101, "invalid device ordinal")                                       \
    X(hipErrorInvalidImage, 200, "device kernel image is invalid")                                \
    X(hipErrorInvalidContext, 201, "invalid device context")                                      \
    X(hipErrorContextAlreadyCurrent, 202, "context is already current context")                   \
    X(hipErrorMapFailed, 205, "mapping of buffer object failed")                                  \
    X(hipErrorUnmapFailed, 206, "unmapping of buffer object failed")                              \
    X(hipErrorArrayIsMapped, 207, "array is mapped")                                              \
    X(hipErrorAlreadyMapped, 208, "resource already mapped")                                      \
    X(hipErrorNoBinaryForGpu, 209, "no kernel image is available for execution on the device")    \
    X(hipErrorAlreadyAcquired, 210, "resource already acquired")                                  \
    X(hipErrorNotMapped, 211, "resource not mapped")                                              \
    X(hipErrorNotMappedAsArray, 212, "resource not mapped as array")                              \
    X(hipErrorNotMappedAsPointer, 213, "resource not mapped as pointer")                          \
    X(hipErrorECCNotCorrectable, 214, "uncorrectable ECC error encountered")                      \
    X(hipErrorUnsupportedLimit, 215, "limit is not supported on this architecture")               \
    X(hipErrorContextAlreadyInUse, 216, "exclusive-thread device already in use")                 \
    X(hipErrorPeerAccessUnsupported, 217, "peer access is not supported between these devices")   \
    X(hipErrorInvalidKernelFile, 218, "invalid kernel file")                                      \
    X(hipErrorInvalidGraphicsContext, 219, "invalid OpenGL or DirectX context")                   \
    X(hipErrorInvalidSource, 300, "device kernel image is invalid")                               \
    X(hipErrorFileNotFound, 301, "file not found")                                                \
    X(hipErrorSharedObjectSymbolNotFound, 302, "shared object symbol not found")                  \
    X(hipErrorSharedObjectInitFailed, 303, "shared object initialization failed")                 \
    X(hipErrorOperatingSystem, 304, "OS call failed or operation not supported on this OS")       \
    X(hipErrorInvalidHandle, 400, "invalid resource handle")                                      \
    X(hipErrorIllegalState, 401, "the operation cannot be performed in the present state")        \
    X(hipErrorNotFound, 500, "named symbol not found")                                            \
    X(hipErrorNotReady, 600, "device not ready")                                                  \
    X(hipErrorIllegalAddress, 700, "an illegal memory access was encountered")                    \
    X(hipErrorLaunchOutOfResources, 701, "too many resources requested for launch")               \
    X(hipErrorLaunchTimeOut, 702, "the launch timed out and was terminated")                      \
    X(hipErrorPeerAccessAlreadyEnabled, 704, "peer access is already enabled")                    \
    X(hipErrorPeerAccessNotEnabled, 705, "peer access has not been enabled")                      \
    X(hipErrorSetOnActiveProcess, 708, "cannot set while device is active in this process")       \
    X(hipErrorContextIsDestroyed, 709, "context is destroyed")                                    \
    X(hipErrorAssert, 710, "device-side assert triggered")                                        \
    X(hipErrorHostMemoryAlreadyRegistered, 712, "memory is already registered or mapped")         \
    X(hipErrorHostMemoryNotRegistered, 713, "pointer is not a registered memory region")          \
    X(hipErrorLaunchFailure, 719, "unspecified launch failure")                                   \
    X(hipErrorCooperativeLaunchTooLarge, 720, "too many blocks in cooperative launch")            \
    X(hipErrorNotSupported, 801, "operation not supported")                                       \
    X(hipErrorStreamCaptureUnsupported, 900, "operation not permitted when stream is capturing")  \
    X(hipErrorStreamCaptureInvalidated, 901, "operation failed due to a previous capture error")  \
    X(hipErrorStreamCaptureMerge, 902, "operation would result in a merge of separate captures")  \
    X(hipErrorStreamCaptureUnmatched, 903, "capture was not ended in the stream it began in")     \
    X(hipErrorStreamCaptureUnjoined, 904, "capturing stream has unjoined work")                   \
    X(hipErrorStreamCaptureIsolation, 905, "dependency created on uncaptured work")               \
    X(hipErrorStreamCaptureImplicit, 906, "operation would make the legacy stream depend on a "   \
                                          "capturing blocking stream")                            \
    X(hipErrorCapturedEvent, 907, "operation not permitted on an event last recorded in a "       \
                                  "capturing stream")                                             \
    X(hipErrorStreamCaptureWrongThread, 908, "attempt to terminate a thread-local capture "       \
                                             "sequence from another thread")                      \
    X(hipErrorGraphExecUpdateFailure, 910, "the graph update was not performed")                  \
    X(hipErrorUnknown, 999, "unknown error")                                                      \
    X(hipErrorRuntimeMemory, 1052, "runtime memory call returned error")                          \
    X(hipErrorRuntimeOther, 1053, "runtime call other than memory returned error")

enum hipError_t : int {
#define HIP_ENUMERATOR(name, value, text) name = value,
    HIP_ERRORS(HIP_ENUMERATOR)
#undef HIP_ENUMERATOR
};

// X(name, value)
#define HIPRTC_RESULTS(X)                             \
    X(HIPRTC_SUCCESS, 0)                              \
    X(HIPRTC_ERROR_OUT_OF_MEMORY, 1)                  \
    X(HIPRTC_ERROR_PROGRAM_CREATION_FAILURE, 2)       \
    X(HIPRTC_ERROR_INVALID_INPUT, 3)                  \
    X(HIPRTC_ERROR_INVALID_PROGRAM, 4)                \
    X(HIPRTC_ERROR_INVALID_OPTION, 5)                 \
    X(HIPRTC_ERROR_COMPILATION, 6)                    \
    X(HIPRTC_ERROR_BUILTIN_OPERATION_FAILURE, 7)      \
    X(HIPRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION, 8) \
    X(HIPRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION, 9)   \
    X(HIPRTC_ERROR_NAME_EXPRESSION_NOT_VALID, 10)     \
    X(HIPRTC_ERROR_INTERNAL_ERROR, 11)                \
    X(HIPRTC_ERROR_LINKING, 100)

#define HIPBLAS_STATUSES(X)                  \
    X(HIPBLAS_STATUS_SUCCESS, 0)             \
    X(HIPBLAS_STATUS_NOT_INITIALIZED, 1)     \
    X(HIPBLAS_STATUS_ALLOC_FAILED, 2)        \
    X(HIPBLAS_STATUS_INVALID_VALUE, 3)       \
    X(HIPBLAS_STATUS_MAPPING_ERROR, 4)       \
    X(HIPBLAS_STATUS_EXECUTION_FAILED, 5)    \
    X(HIPBLAS_STATUS_INTERNAL_ERROR, 6)      \
    X(HIPBLAS_STATUS_NOT_SUPPORTED, 7)       \
    X(HIPBLAS_STATUS_ARCH_MISMATCH, 8)       \
    X(HIPBLAS_STATUS_HANDLE_IS_NULLPTR, 9)   \
    X(HIPBLAS_STATUS_INVALID_ENUM, 10)       \
    X(HIPBLAS_STATUS_UNKNOWN, 11)

#define PLAIN_ENUMERATOR(name, value) name = value,
enum hiprtcResult : int { HIPRTC_RESULTS(PLAIN_ENUMERATOR) };
enum hipblasStatus_t : int { HIPBLAS_STATUSES(PLAIN_ENUMERATOR) };
#undef PLAIN_ENUMERATOR

enum hipMemcpyKind : int {
    hipMemcpyHostToHost = 0,
    hipMemcpyHostToDevice = 1,
    hipMemcpyDeviceToHost = 2,
    hipMemcpyDeviceToDevice = 3,
    hipMemcpyDefault = 4,
};

enum hipMemoryType : int {
    hipMemoryTypeUnregistered = 0,
    hipMemoryTypeHost = 1,
    hipMemoryTypeDevice = 2,
};

enum hipPointer_attribute : int {
    HIP_POINTER_ATTRIBUTE_MEMORY_TYPE = 2,
    HIP_POINTER_ATTRIBUTE_DEVICE_POINTER = 3,
    HIP_POINTER_ATTRIBUTE_HOST_POINTER = 4,
    HIP_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,
    HIP_POINTER_ATTRIBUTE_RANGE_START_ADDR = 11,
    HIP_POINTER_ATTRIBUTE_RANGE_SIZE = 12,
};

struct hipPointerAttribute_t {
    hipMemoryType type;
    int device;
    void* devicePointer;
    void* hostPointer;
    int isManaged;
    unsigned allocationFlags;
};

constexpr unsigned hipStreamDefault = 0;
constexpr unsigned hipStreamNonBlocking = 1;

constexpr unsigned hipEventBlockingSync = 0x1;
constexpr unsigned hipEventDisableTiming = 0x2;
constexpr unsigned hipEventInterprocess = 0x4;
constexpr unsigned hipEventDisableSystemFence = 0x20000000;
constexpr unsigned hipEventReleaseToDevice = 0x40000000;
constexpr unsigned hipEventReleaseToSystem = 0x80000000;

enum hipStreamCaptureMode : int {
    hipStreamCaptureModeGlobal = 0,
    hipStreamCaptureModeThreadLocal = 1,
    hipStreamCaptureModeRelaxed = 2,
};

enum hipStreamCaptureStatus : int {
    hipStreamCaptureStatusNone = 0,
    hipStreamCaptureStatusActive = 1,
    hipStreamCaptureStatusInvalidated = 2,
};

enum hipGraphNodeType : int {
    hipGraphNodeTypeKernel = 0,
    hipGraphNodeTypeMemcpy = 1,
    hipGraphNodeTypeMemset = 2,
    hipGraphNodeTypeHost = 3,
    hipGraphNodeTypeEmpty = 5,
};

enum hipFuncAttribute : int {
    hipFuncAttributeMaxDynamicSharedMemorySize = 8,
    hipFuncAttributePreferredSharedMemoryCarveout = 9,
};

enum hipFunction_attribute : int {
    HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
    HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
    HIP_FUNC_ATTRIBUTE_CONST_SIZE_BYTES = 2,
    HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
    HIP_FUNC_ATTRIBUTE_NUM_REGS = 4,
    HIP_FUNC_ATTRIBUTE_PTX_VERSION = 5,
    HIP_FUNC_ATTRIBUTE_BINARY_VERSION = 6,
    HIP_FUNC_ATTRIBUTE_CACHE_MODE_CA = 7,
    HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    HIP_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
};

// How the `extra` array of hipModuleLaunchKernel is marked up; HIP ends it with 3, CUDA with 0.
constexpr std::uintptr_t HIP_LAUNCH_PARAM_BUFFER_POINTER = 1;
constexpr std::uintptr_t HIP_LAUNCH_PARAM_BUFFER_SIZE = 2;
constexpr std::uintptr_t HIP_LAUNCH_PARAM_END = 3;

enum hipDataType : int {
    HIP_R_32F = 0,
    HIP_R_64F = 1,
    HIP_R_16F = 2,
    HIP_R_16BF = 14,
};

enum hipblasOperation_t : int {
    HIPBLAS_OP_N = 111,
    HIPBLAS_OP_T = 112,
    HIPBLAS_OP_C = 113,
};

enum hipblasComputeType_t : int {
    HIPBLAS_COMPUTE_16F = 0,
    HIPBLAS_COMPUTE_16F_PEDANTIC = 1,
    HIPBLAS_COMPUTE_32F = 2,
    HIPBLAS_COMPUTE_32F_PEDANTIC = 3,
    HIPBLAS_COMPUTE_32F_FAST_16F = 4,
    HIPBLAS_COMPUTE_32F_FAST_16BF = 5,
    HIPBLAS_COMPUTE_32F_FAST_TF32 = 6,
    HIPBLAS_COMPUTE_64F = 7,
    HIPBLAS_COMPUTE_64F_PEDANTIC = 8,
};

enum hipblasPointerMode_t : int { HIPBLAS_POINTER_MODE_HOST = 0, HIPBLAS_POINTER_MODE_DEVICE = 1 };
enum hipblasAtomicsMode_t : int { HIPBLAS_ATOMICS_NOT_ALLOWED = 0, HIPBLAS_ATOMICS_ALLOWED = 1 };
enum hipblasMath_t : int { HIPBLAS_DEFAULT_MATH = 0 };
enum hipblasGemmAlgo_t : int { HIPBLAS_GEMM_DEFAULT = 160 };
enum hipblasGemmFlags_t : int { HIPBLAS_GEMM_FLAGS_NONE = 0 };

enum ncclResult_t {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInternalError = 3,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
};

struct ncclUniqueId {
    char internal[128];
};
