/* libamdhip64 on top of the CUDA runtime and driver.
 *
 * hip-python opens `libamdhip64.so` and its siblings and looks functions up by name. The libraries
 * of this folder export the functions that graphexec calls, with HIP's signatures, and forward
 * each of them, so the code that drives an AMD GPU drives an NVIDIA GPU unchanged:
 *
 *     hip.c        libamdhip64    CUDA runtime, and the driver for modules and kernels
 *     hiprtc.c     libhiprtc      NVRTC
 *     hipblas.c    libhipblas     cuBLAS
 *     hipblaslt.c  libhipblaslt   cuBLASLt
 *     roctx.c      libroctx64     NVTX, where its headers are
 *
 * The scheme:
 *   - Handles (stream, event, graph, module, function, BLAS handle, BLASLt descriptor, hiprtc
 *     program) are CUDA's own pointers under HIP's name: nothing is wrapped, nothing is counted.
 *   - Enumerations are translated by tables of {HIP, CUDA} pairs, also where the numbers agree. A
 *     value without a pair is refused as "not supported", never passed on.
 *   - Every status goes through one function a library: `done` (HIP), `rtc_done`, `blas_done`.
 *     hip-python can name HIP's own codes only, so a CUDA code without a HIP twin becomes its
 *     nearest relative or hipErrorUnknown, whose text then names the CUDA error.
 *   - Modules and kernels need the driver API (the runtime API cannot launch a packed argument
 *     buffer). libcuda is opened on first use, so the library loads without a driver and then
 *     answers hipErrorInsufficientDriver.
 *
 * Thread safe. Only the error state is kept per thread, as in HIP. CUDA 12 and newer.
 */
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "translate.h"

/* ------------------------------------------------------------------------------------------- */
/* Errors                                                                                        */
/* ------------------------------------------------------------------------------------------- */

typedef int hipError_t;

enum {
    hipSuccess = 0,
    hipErrorInvalidValue = 1,
    hipErrorNotInitialized = 3,
    hipErrorInvalidMemcpyDirection = 21,
    hipErrorInsufficientDriver = 35,
    hipErrorNoDevice = 100,
    hipErrorNoBinaryForGpu = 209,
    hipErrorNotReady = 600,
    hipErrorLaunchFailure = 719,
    hipErrorNotSupported = 801,
    hipErrorUnknown = 999,
};

/* The codes that every supported hip-python knows. CUDA's runtime and driver use the same numbers
 * with the same meaning. */
static const struct {
    hipError_t code;
    const char *name;
} ERROR_NAMES[] = {
    {0, "hipSuccess"},
    {1, "hipErrorInvalidValue"},
    {2, "hipErrorOutOfMemory"},
    {3, "hipErrorNotInitialized"},
    {4, "hipErrorDeinitialized"},
    {5, "hipErrorProfilerDisabled"},
    {6, "hipErrorProfilerNotInitialized"},
    {7, "hipErrorProfilerAlreadyStarted"},
    {8, "hipErrorProfilerAlreadyStopped"},
    {9, "hipErrorInvalidConfiguration"},
    {12, "hipErrorInvalidPitchValue"},
    {13, "hipErrorInvalidSymbol"},
    {17, "hipErrorInvalidDevicePointer"},
    {21, "hipErrorInvalidMemcpyDirection"},
    {35, "hipErrorInsufficientDriver"},
    {52, "hipErrorMissingConfiguration"},
    {53, "hipErrorPriorLaunchFailure"},
    {98, "hipErrorInvalidDeviceFunction"},
    {100, "hipErrorNoDevice"},
    {101, "hipErrorInvalidDevice"},
    {200, "hipErrorInvalidImage"},
    {201, "hipErrorInvalidContext"},
    {205, "hipErrorMapFailed"},
    {206, "hipErrorUnmapFailed"},
    {207, "hipErrorArrayIsMapped"},
    {208, "hipErrorAlreadyMapped"},
    {209, "hipErrorNoBinaryForGpu"},
    {210, "hipErrorAlreadyAcquired"},
    {211, "hipErrorNotMapped"},
    {212, "hipErrorNotMappedAsArray"},
    {213, "hipErrorNotMappedAsPointer"},
    {214, "hipErrorECCNotCorrectable"},
    {215, "hipErrorUnsupportedLimit"},
    {216, "hipErrorContextAlreadyInUse"},
    {217, "hipErrorPeerAccessUnsupported"},
    {218, "hipErrorInvalidKernelFile"},
    {219, "hipErrorInvalidGraphicsContext"},
    {300, "hipErrorInvalidSource"},
    {301, "hipErrorFileNotFound"},
    {302, "hipErrorSharedObjectSymbolNotFound"},
    {303, "hipErrorSharedObjectInitFailed"},
    {304, "hipErrorOperatingSystem"},
    {400, "hipErrorInvalidHandle"},
    {401, "hipErrorIllegalState"},
    {500, "hipErrorNotFound"},
    {600, "hipErrorNotReady"},
    {700, "hipErrorIllegalAddress"},
    {701, "hipErrorLaunchOutOfResources"},
    {702, "hipErrorLaunchTimeOut"},
    {704, "hipErrorPeerAccessAlreadyEnabled"},
    {705, "hipErrorPeerAccessNotEnabled"},
    {708, "hipErrorSetOnActiveProcess"},
    {709, "hipErrorContextIsDestroyed"},
    {710, "hipErrorAssert"},
    {712, "hipErrorHostMemoryAlreadyRegistered"},
    {713, "hipErrorHostMemoryNotRegistered"},
    {719, "hipErrorLaunchFailure"},
    {720, "hipErrorCooperativeLaunchTooLarge"},
    {801, "hipErrorNotSupported"},
    {900, "hipErrorStreamCaptureUnsupported"},
    {901, "hipErrorStreamCaptureInvalidated"},
    {902, "hipErrorStreamCaptureMerge"},
    {903, "hipErrorStreamCaptureUnmatched"},
    {904, "hipErrorStreamCaptureUnjoined"},
    {905, "hipErrorStreamCaptureIsolation"},
    {906, "hipErrorStreamCaptureImplicit"},
    {907, "hipErrorCapturedEvent"},
    {908, "hipErrorStreamCaptureWrongThread"},
    {910, "hipErrorGraphExecUpdateFailure"},
    {999, "hipErrorUnknown"},
};

/* CUDA codes without a HIP twin, and the HIP code that says most of the same. */
static const Pair ERROR_RELATIVES[] = {
    {hipErrorInvalidValue, cudaErrorInvalidHostPointer},
    {hipErrorNoDevice, cudaErrorDevicesUnavailable},
    {hipErrorNotInitialized, cudaErrorStartupFailure},
    {hipErrorNoBinaryForGpu, cudaErrorUnsupportedPtxVersion},
    {hipErrorLaunchFailure, cudaErrorHardwareStackError},
    {hipErrorLaunchFailure, cudaErrorIllegalInstruction},
    {hipErrorLaunchFailure, cudaErrorMisalignedAddress},
    {hipErrorLaunchFailure, cudaErrorInvalidAddressSpace},
    {hipErrorLaunchFailure, cudaErrorInvalidPc},
    {hipErrorNotSupported, cudaErrorNotPermitted},
};

static _Thread_local hipError_t last_error;       /* since the last hipGetLastError */
static _Thread_local int last_foreign_cuda_error; /* the CUDA code behind a hipErrorUnknown */

static const char *error_name(hipError_t code)
{
    for (size_t i = 0; i < LENGTH(ERROR_NAMES); i++)
        if (ERROR_NAMES[i].code == code)
            return ERROR_NAMES[i].name;
    return NULL;
}

/* Keeps an error for hipGetLastError. hipErrorNotReady is an answer, not an error. */
static hipError_t fail(hipError_t code)
{
    if (code != hipErrorNotReady)
        last_error = code;
    return code;
}

/* The HIP status of a CUDA status, of the runtime or the driver API. */
static hipError_t done(int cuda)
{
    int hip;
    if (cuda == hipSuccess)
        return hipSuccess;
    if (error_name(cuda))
        return fail(cuda);
    if (TO_HIP(ERROR_RELATIVES, cuda, &hip))
        return fail(hip);
    last_foreign_cuda_error = cuda;
    return fail(hipErrorUnknown);
}

EXPORT hipError_t hipGetLastError(void)
{
    hipError_t code = last_error;
    last_error = hipSuccess;
    (void)cudaGetLastError(); /* CUDA keeps the same error: drained too */
    return code;
}

EXPORT hipError_t hipPeekAtLastError(void)
{
    return last_error;
}

EXPORT const char *hipGetErrorName(hipError_t code)
{
    const char *name = error_name(code);
    return name ? name : "hipErrorUnknown";
}

EXPORT const char *hipGetErrorString(hipError_t code)
{
    static _Thread_local char text[160];
    if (code != hipErrorUnknown || !last_foreign_cuda_error)
        return cudaGetErrorString((cudaError_t)code);
    snprintf(text, sizeof text, "unknown to HIP; CUDA error %d: %s", last_foreign_cuda_error,
             cudaGetErrorString((cudaError_t)last_foreign_cuda_error));
    return text;
}

/* ------------------------------------------------------------------------------------------- */
/* The driver API, opened on first use                                                           */
/* ------------------------------------------------------------------------------------------- */

#define DRIVER_FUNCTIONS(X)                                                                        \
    X(cuCtxGetCurrent)                                                                             \
    X(cuModuleLoadData)                                                                            \
    X(cuModuleUnload)                                                                              \
    X(cuModuleGetFunction)                                                                         \
    X(cuLaunchKernel)                                                                              \
    X(cuFuncGetAttribute)                                                                          \
    X(cuFuncSetAttribute)                                                                          \
    X(cuOccupancyMaxActiveBlocksPerMultiprocessor)                                                 \
    X(cuPointerGetAttribute)

#define DECLARE(name) __typeof__(name) *name;
#define RESOLVE(name) driver.name = (__typeof__(driver.name))dlsym(library, #name);
#define AND_PRESENT(name) &&driver.name

static struct {
    bool complete;
    DRIVER_FUNCTIONS(DECLARE)
} driver;

static void open_driver(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
    if (!library)
        return;
    DRIVER_FUNCTIONS(RESOLVE)
    driver.complete = true DRIVER_FUNCTIONS(AND_PRESENT);
}

/* Makes the driver API usable on this thread: the primary context of the thread's device must be
 * current, which a first runtime call on the thread brings about. */
static hipError_t use_driver(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CUcontext context = NULL;
    pthread_once(&once, open_driver);
    if (!driver.complete)
        return fail(hipErrorInsufficientDriver);
    if (driver.cuCtxGetCurrent(&context) == CUDA_SUCCESS && context)
        return hipSuccess;
    return done(cudaFree(NULL));
}

/* Forwards one driver call from a function that returns hipError_t. */
#define DRIVER_CALL(call)                                                                          \
    do {                                                                                           \
        hipError_t ready = use_driver();                                                           \
        return ready != hipSuccess ? ready : done(driver.call);                                    \
    } while (0)

/* ------------------------------------------------------------------------------------------- */
/* Versions and devices                                                                          */
/* ------------------------------------------------------------------------------------------- */

EXPORT hipError_t hipInit(unsigned int flags)
{
    int count;
    return flags ? fail(hipErrorInvalidValue) : done(cudaGetDeviceCount(&count));
}

/* As in HIP on NVIDIA platforms, versions are CUDA's: 1000 * major + 10 * minor. */
EXPORT hipError_t hipRuntimeGetVersion(int *version)
{
    return done(cudaRuntimeGetVersion(version));
}

EXPORT hipError_t hipDriverGetVersion(int *version) { return done(cudaDriverGetVersion(version)); }

EXPORT hipError_t hipGetDeviceCount(int *count) { return done(cudaGetDeviceCount(count)); }

EXPORT hipError_t hipSetDevice(int device) { return done(cudaSetDevice(device)); }

EXPORT hipError_t hipGetDevice(int *device) { return done(cudaGetDevice(device)); }

EXPORT hipError_t hipDeviceSynchronize(void) { return done(cudaDeviceSynchronize()); }

EXPORT hipError_t hipMemGetInfo(size_t *available, size_t *total)
{
    return done(cudaMemGetInfo(available, total));
}

EXPORT hipError_t hipDeviceGetName(char *name, int length, int device)
{
    struct cudaDeviceProp properties;
    hipError_t status;
    if (!name || length <= 0)
        return fail(hipErrorInvalidValue);
    status = done(cudaGetDeviceProperties(&properties, device));
    if (status == hipSuccess)
        snprintf(name, (size_t)length, "%s", properties.name);
    return status;
}

EXPORT hipError_t hipDeviceTotalMem(size_t *bytes, int device)
{
    struct cudaDeviceProp properties;
    hipError_t status = done(cudaGetDeviceProperties(&properties, device));
    if (status == hipSuccess)
        *bytes = properties.totalGlobalMem;
    return status;
}

/* hipDeviceAttribute_t counts in HIP's alphabetical order; the number is the name's only trace. */
static const Pair DEVICE_ATTRIBUTES[] = {
    {0, cudaDevAttrEccEnabled},
    {2, cudaDevAttrAsyncEngineCount},
    {3, cudaDevAttrCanMapHostMemory},
    {4, cudaDevAttrCanUseHostPointerForRegisteredMem},
    {5, cudaDevAttrClockRate},
    {6, cudaDevAttrComputeMode},
    {7, cudaDevAttrComputePreemptionSupported},
    {8, cudaDevAttrConcurrentKernels},
    {9, cudaDevAttrConcurrentManagedAccess},
    {10, cudaDevAttrCooperativeLaunch},
    {16, cudaDevAttrIntegrated},
    {18, cudaDevAttrKernelExecTimeout},
    {19, cudaDevAttrL2CacheSize},
    {23, cudaDevAttrComputeCapabilityMajor},
    {24, cudaDevAttrManagedMemory},
    {25, cudaDevAttrMaxBlocksPerMultiprocessor},
    {26, cudaDevAttrMaxBlockDimX},
    {27, cudaDevAttrMaxBlockDimY},
    {28, cudaDevAttrMaxBlockDimZ},
    {29, cudaDevAttrMaxGridDimX},
    {30, cudaDevAttrMaxGridDimY},
    {31, cudaDevAttrMaxGridDimZ},
    {56, cudaDevAttrMaxThreadsPerBlock},
    {57, cudaDevAttrMaxThreadsPerMultiProcessor},
    {58, cudaDevAttrMaxPitch},
    {59, cudaDevAttrGlobalMemoryBusWidth},
    {60, cudaDevAttrMemoryClockRate},
    {61, cudaDevAttrComputeCapabilityMinor},
    {63, cudaDevAttrMultiProcessorCount},
    {65, cudaDevAttrPageableMemoryAccess},
    {67, cudaDevAttrPciBusId},
    {68, cudaDevAttrPciDeviceId},
    {69, cudaDevAttrPciDomainId},
    {70, cudaDevAttrMaxPersistingL2CacheSize},
    {71, cudaDevAttrMaxRegistersPerBlock},
    {72, cudaDevAttrMaxRegistersPerMultiprocessor},
    {73, cudaDevAttrReservedSharedMemoryPerBlock},
    {74, cudaDevAttrMaxSharedMemoryPerBlock},
    {75, cudaDevAttrMaxSharedMemoryPerBlockOptin},
    {76, cudaDevAttrMaxSharedMemoryPerMultiprocessor},
    {78, cudaDevAttrStreamPrioritiesSupported},
    {83, cudaDevAttrTotalConstantMemory},
    {85, cudaDevAttrUnifiedAddressing},
    {87, cudaDevAttrWarpSize},
    {88, cudaDevAttrMemoryPoolsSupported},
    {90, cudaDevAttrHostRegisterSupported},
    {10002, cudaDevAttrMaxSharedMemoryPerMultiprocessor},
    {10015, cudaDevAttrMultiProcessorCount}, /* physical multiprocessors: AMD's extension */
};

EXPORT hipError_t hipDeviceGetAttribute(int *value, int attribute, int device)
{
    int cuda;
    if (!TO_CUDA(DEVICE_ATTRIBUTES, attribute, &cuda))
        return fail(hipErrorNotSupported);
    return done(cudaDeviceGetAttribute(value, (enum cudaDeviceAttr)cuda, device));
}

/* hipDeviceProp_tR0600, the layout of ROCm 6 and newer, field by field. */
typedef struct {
    char name[256];
    char uuid[16];
    char luid[8];
    unsigned int luidDeviceNodeMask;
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    int regsPerBlock;
    int warpSize;
    size_t memPitch;
    int maxThreadsPerBlock;
    int maxThreadsDim[3];
    int maxGridSize[3];
    int clockRate;
    size_t totalConstMem;
    int major;
    int minor;
    size_t textureAlignment;
    size_t texturePitchAlignment;
    int deviceOverlap;
    int multiProcessorCount;
    int kernelExecTimeoutEnabled;
    int integrated;
    int canMapHostMemory;
    int computeMode;
    int textureAndSurfaceLimits[40]; /* maxTexture1D to maxSurfaceCubemapLayered: not filled */
    size_t surfaceAlignment;
    int concurrentKernels;
    int ECCEnabled;
    int pciBusID;
    int pciDeviceID;
    int pciDomainID;
    int tccDriver;
    int asyncEngineCount;
    int unifiedAddressing;
    int memoryClockRate;
    int memoryBusWidth;
    int l2CacheSize;
    int persistingL2CacheMaxSize;
    int maxThreadsPerMultiProcessor;
    int streamPrioritiesSupported;
    int globalL1CacheSupported;
    int localL1CacheSupported;
    size_t sharedMemPerMultiprocessor;
    int regsPerMultiprocessor;
    int managedMemory;
    int isMultiGpuBoard;
    int multiGpuBoardGroupID;
    int hostNativeAtomicSupported;
    int singleToDoublePrecisionPerfRatio;
    int pageableMemoryAccess;
    int concurrentManagedAccess;
    int computePreemptionSupported;
    int canUseHostPointerForRegisteredMem;
    int cooperativeLaunch;
    int cooperativeMultiDeviceLaunch;
    size_t sharedMemPerBlockOptin;
    int pageableMemoryAccessUsesHostPageTables;
    int directManagedMemAccessFromHost;
    int maxBlocksPerMultiProcessor;
    int accessPolicyMaxWindowSize;
    size_t reservedSharedMemPerBlock;
    int hostRegisterSupported;
    int sparseHipArraySupported;
    int hostRegisterReadOnlySupported;
    int timelineSemaphoreInteropSupported;
    int memoryPoolsSupported;
    int gpuDirectRDMASupported;
    unsigned int gpuDirectRDMAFlushWritesOptions;
    int gpuDirectRDMAWritesOrdering;
    unsigned int memoryPoolSupportedHandleTypes;
    int deferredMappingHipArraySupported;
    int ipcEventSupported;
    int clusterLaunch;
    int unifiedFunctionPointers;
    int reserved[63];
    int hipReserved[32];
    char gcnArchName[256];
    size_t maxSharedMemoryPerMultiProcessor;
    int clockInstructionRate;
    unsigned int arch; /* hipDeviceArch_t: 17 one-bit flags */
    unsigned int *hdpMemFlushCntl;
    unsigned int *hdpRegFlushCntl;
    int cooperativeMultiDeviceUnmatchedFunc;
    int cooperativeMultiDeviceUnmatchedGridDim;
    int cooperativeMultiDeviceUnmatchedBlockDim;
    int cooperativeMultiDeviceUnmatchedSharedMem;
    int isLargeBar;
    int asicRevision;
} hipDeviceProp_t;

_Static_assert(sizeof(hipDeviceProp_t) == 1472 && offsetof(hipDeviceProp_t, gcnArchName) == 1160,
               "the layout of hipDeviceProp_tR0600");

/* Fields of type int that are CUDA device attributes: cudaDeviceProp lost some in CUDA 13. */
static const struct {
    size_t offset;
    enum cudaDeviceAttr attribute;
} PROPERTY_ATTRIBUTES[] = {
    {offsetof(hipDeviceProp_t, regsPerBlock), cudaDevAttrMaxRegistersPerBlock},
    {offsetof(hipDeviceProp_t, warpSize), cudaDevAttrWarpSize},
    {offsetof(hipDeviceProp_t, maxThreadsPerBlock), cudaDevAttrMaxThreadsPerBlock},
    {offsetof(hipDeviceProp_t, maxThreadsDim[0]), cudaDevAttrMaxBlockDimX},
    {offsetof(hipDeviceProp_t, maxThreadsDim[1]), cudaDevAttrMaxBlockDimY},
    {offsetof(hipDeviceProp_t, maxThreadsDim[2]), cudaDevAttrMaxBlockDimZ},
    {offsetof(hipDeviceProp_t, maxGridSize[0]), cudaDevAttrMaxGridDimX},
    {offsetof(hipDeviceProp_t, maxGridSize[1]), cudaDevAttrMaxGridDimY},
    {offsetof(hipDeviceProp_t, maxGridSize[2]), cudaDevAttrMaxGridDimZ},
    {offsetof(hipDeviceProp_t, clockRate), cudaDevAttrClockRate},
    {offsetof(hipDeviceProp_t, major), cudaDevAttrComputeCapabilityMajor},
    {offsetof(hipDeviceProp_t, minor), cudaDevAttrComputeCapabilityMinor},
    {offsetof(hipDeviceProp_t, multiProcessorCount), cudaDevAttrMultiProcessorCount},
    {offsetof(hipDeviceProp_t, kernelExecTimeoutEnabled), cudaDevAttrKernelExecTimeout},
    {offsetof(hipDeviceProp_t, integrated), cudaDevAttrIntegrated},
    {offsetof(hipDeviceProp_t, canMapHostMemory), cudaDevAttrCanMapHostMemory},
    {offsetof(hipDeviceProp_t, computeMode), cudaDevAttrComputeMode},
    {offsetof(hipDeviceProp_t, concurrentKernels), cudaDevAttrConcurrentKernels},
    {offsetof(hipDeviceProp_t, ECCEnabled), cudaDevAttrEccEnabled},
    {offsetof(hipDeviceProp_t, pciBusID), cudaDevAttrPciBusId},
    {offsetof(hipDeviceProp_t, pciDeviceID), cudaDevAttrPciDeviceId},
    {offsetof(hipDeviceProp_t, pciDomainID), cudaDevAttrPciDomainId},
    {offsetof(hipDeviceProp_t, asyncEngineCount), cudaDevAttrAsyncEngineCount},
    {offsetof(hipDeviceProp_t, unifiedAddressing), cudaDevAttrUnifiedAddressing},
    {offsetof(hipDeviceProp_t, memoryClockRate), cudaDevAttrMemoryClockRate},
    {offsetof(hipDeviceProp_t, memoryBusWidth), cudaDevAttrGlobalMemoryBusWidth},
    {offsetof(hipDeviceProp_t, l2CacheSize), cudaDevAttrL2CacheSize},
    {offsetof(hipDeviceProp_t, persistingL2CacheMaxSize), cudaDevAttrMaxPersistingL2CacheSize},
    {offsetof(hipDeviceProp_t, maxThreadsPerMultiProcessor),
     cudaDevAttrMaxThreadsPerMultiProcessor},
    {offsetof(hipDeviceProp_t, streamPrioritiesSupported), cudaDevAttrStreamPrioritiesSupported},
    {offsetof(hipDeviceProp_t, regsPerMultiprocessor), cudaDevAttrMaxRegistersPerMultiprocessor},
    {offsetof(hipDeviceProp_t, managedMemory), cudaDevAttrManagedMemory},
    {offsetof(hipDeviceProp_t, cooperativeLaunch), cudaDevAttrCooperativeLaunch},
    {offsetof(hipDeviceProp_t, maxBlocksPerMultiProcessor),
     cudaDevAttrMaxBlocksPerMultiprocessor},
    {offsetof(hipDeviceProp_t, hostRegisterSupported), cudaDevAttrHostRegisterSupported},
    {offsetof(hipDeviceProp_t, memoryPoolsSupported), cudaDevAttrMemoryPoolsSupported},
};

EXPORT hipError_t hipGetDevicePropertiesR0600(hipDeviceProp_t *properties, int device)
{
    struct cudaDeviceProp cuda;
    hipError_t status;
    if (!properties)
        return fail(hipErrorInvalidValue);
    memset(properties, 0, sizeof *properties);
    status = done(cudaGetDeviceProperties(&cuda, device));
    for (size_t i = 0; i < LENGTH(PROPERTY_ATTRIBUTES) && status == hipSuccess; i++) {
        int *field = (int *)((char *)properties + PROPERTY_ATTRIBUTES[i].offset);
        status = done(cudaDeviceGetAttribute(field, PROPERTY_ATTRIBUTES[i].attribute, device));
    }
    if (status != hipSuccess)
        return status;
    snprintf(properties->name, sizeof properties->name, "%s", cuda.name);
    snprintf(properties->gcnArchName, sizeof properties->gcnArchName, "sm_%d%d", cuda.major,
             cuda.minor);
    memcpy(properties->uuid, &cuda.uuid, sizeof properties->uuid);
    properties->totalGlobalMem = cuda.totalGlobalMem;
    properties->sharedMemPerBlock = cuda.sharedMemPerBlock;
    properties->memPitch = cuda.memPitch;
    properties->totalConstMem = cuda.totalConstMem;
    properties->textureAlignment = cuda.textureAlignment;
    properties->texturePitchAlignment = cuda.texturePitchAlignment;
    properties->surfaceAlignment = cuda.surfaceAlignment;
    properties->sharedMemPerMultiprocessor = cuda.sharedMemPerMultiprocessor;
    properties->maxSharedMemoryPerMultiProcessor = cuda.sharedMemPerMultiprocessor;
    properties->sharedMemPerBlockOptin = cuda.sharedMemPerBlockOptin;
    properties->reservedSharedMemPerBlock = cuda.reservedSharedMemPerBlock;
    return hipSuccess;
}

/* ------------------------------------------------------------------------------------------- */
/* Memory                                                                                        */
/* ------------------------------------------------------------------------------------------- */

/* Portable, mapped, write-combined: as in CUDA. */
static const unsigned int HOST_FLAGS = 0x7;
/* NUMA, coherent, non-coherent: AMD's, without effect here. */
static const unsigned int HOST_PLACEMENT_FLAGS = 0xE0000000;

static const Pair MEMCPY_KINDS[] = {
    {0, cudaMemcpyHostToHost},
    {1, cudaMemcpyHostToDevice},
    {2, cudaMemcpyDeviceToHost},
    {3, cudaMemcpyDeviceToDevice},
    {4, cudaMemcpyDefault},
    {1024, cudaMemcpyDeviceToDevice}, /* ... without AMD's compute units */
};

/* An empty allocation is a null pointer in HIP and an error in CUDA. */
EXPORT hipError_t hipMalloc(void **pointer, size_t bytes)
{
    if (pointer && !bytes) {
        *pointer = NULL;
        return hipSuccess;
    }
    return done(cudaMalloc(pointer, bytes));
}

EXPORT hipError_t hipFree(void *pointer) { return done(cudaFree(pointer)); }

EXPORT hipError_t hipHostMalloc(void **pointer, size_t bytes, unsigned int flags)
{
    flags &= ~HOST_PLACEMENT_FLAGS;
    if (flags & ~HOST_FLAGS)
        return fail(hipErrorInvalidValue);
    return done(cudaHostAlloc(pointer, bytes, flags));
}

EXPORT hipError_t hipHostFree(void *pointer) { return done(cudaFreeHost(pointer)); }

EXPORT hipError_t hipHostRegister(void *pointer, size_t bytes, unsigned int flags)
{
    if (flags & ~HOST_FLAGS)
        return fail(hipErrorInvalidValue);
    return done(cudaHostRegister(pointer, bytes, flags));
}

EXPORT hipError_t hipHostUnregister(void *pointer) { return done(cudaHostUnregister(pointer)); }

EXPORT hipError_t hipMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    int cuda;
    if (!TO_CUDA(MEMCPY_KINDS, kind, &cuda))
        return fail(hipErrorInvalidMemcpyDirection);
    return done(cudaMemcpy(to, from, bytes, (enum cudaMemcpyKind)cuda));
}

EXPORT hipError_t hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind,
                                 cudaStream_t stream)
{
    int cuda;
    if (!TO_CUDA(MEMCPY_KINDS, kind, &cuda))
        return fail(hipErrorInvalidMemcpyDirection);
    return done(cudaMemcpyAsync(to, from, bytes, (enum cudaMemcpyKind)cuda, stream));
}

EXPORT hipError_t hipMemcpyHtoDAsync(void *to, const void *from, size_t bytes, cudaStream_t stream)
{
    return done(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream));
}

EXPORT hipError_t hipMemcpyDtoHAsync(void *to, void *from, size_t bytes, cudaStream_t stream)
{
    return done(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream));
}

EXPORT hipError_t hipMemcpyDtoDAsync(void *to, void *from, size_t bytes, cudaStream_t stream)
{
    return done(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}

EXPORT hipError_t hipMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                                   size_t width, size_t height, int kind, cudaStream_t stream)
{
    int cuda;
    if (!TO_CUDA(MEMCPY_KINDS, kind, &cuda))
        return fail(hipErrorInvalidMemcpyDirection);
    return done(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height,
                                  (enum cudaMemcpyKind)cuda, stream));
}

EXPORT hipError_t hipMemset(void *to, int value, size_t bytes)
{
    return done(cudaMemset(to, value, bytes));
}

EXPORT hipError_t hipMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    return done(cudaMemsetAsync(to, value, bytes, stream));
}

static const Pair MEMORY_TYPES[] = {
    {0, cudaMemoryTypeUnregistered},
    {1, cudaMemoryTypeHost},
    {2, cudaMemoryTypeDevice},
    {3, cudaMemoryTypeManaged},
};

typedef struct {
    int type;
    int device;
    void *devicePointer;
    void *hostPointer;
    int isManaged;
    unsigned int allocationFlags;
} hipPointerAttribute_t;

EXPORT hipError_t hipPointerGetAttributes(hipPointerAttribute_t *attributes, const void *pointer)
{
    struct cudaPointerAttributes cuda;
    hipError_t status = done(cudaPointerGetAttributes(&cuda, pointer));
    if (status != hipSuccess)
        return status;
    memset(attributes, 0, sizeof *attributes);
    if (!TO_HIP(MEMORY_TYPES, cuda.type, &attributes->type))
        return fail(hipErrorNotSupported);
    attributes->device = cuda.device;
    attributes->devicePointer = cuda.devicePointer;
    attributes->hostPointer = cuda.hostPointer;
    attributes->isManaged = cuda.type == cudaMemoryTypeManaged;
    return hipSuccess;
}

enum { POINTER_ATTRIBUTE_MEMORY_TYPE = 2 };

static const Pair POINTER_ATTRIBUTES[] = {
    {POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_MEMORY_TYPE},
    {3, CU_POINTER_ATTRIBUTE_DEVICE_POINTER},
    {4, CU_POINTER_ATTRIBUTE_HOST_POINTER},
    {7, CU_POINTER_ATTRIBUTE_BUFFER_ID},
    {8, CU_POINTER_ATTRIBUTE_IS_MANAGED},
    {9, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL},
    {11, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR},
    {12, CU_POINTER_ATTRIBUTE_RANGE_SIZE},
    {13, CU_POINTER_ATTRIBUTE_MAPPED},
};

static const Pair DRIVER_MEMORY_TYPES[] = {
    {1, CU_MEMORYTYPE_HOST},
    {2, CU_MEMORYTYPE_DEVICE},
    {10, CU_MEMORYTYPE_ARRAY},
    {11, CU_MEMORYTYPE_UNIFIED},
};

EXPORT hipError_t hipPointerGetAttribute(void *value, int attribute, void *pointer)
{
    int cuda;
    hipError_t status = use_driver();
    if (status != hipSuccess)
        return status;
    if (!TO_CUDA(POINTER_ATTRIBUTES, attribute, &cuda))
        return fail(hipErrorNotSupported);
    status = done(driver.cuPointerGetAttribute(value, (CUpointer_attribute)cuda,
                                               (CUdeviceptr)(uintptr_t)pointer));
    if (status == hipSuccess && attribute == POINTER_ATTRIBUTE_MEMORY_TYPE &&
        !TO_HIP(DRIVER_MEMORY_TYPES, *(unsigned int *)value, (int *)value))
        return fail(hipErrorNotSupported);
    return status;
}

/* ------------------------------------------------------------------------------------------- */
/* Streams and events                                                                            */
/* ------------------------------------------------------------------------------------------- */

/* Blocking sync, disable timing, interprocess: as in CUDA. */
static const unsigned int EVENT_FLAGS = 0x7;
/* The scope of a release: CUDA's is always the system. */
static const unsigned int EVENT_RELEASE_FLAGS = 0xE0000000;

EXPORT hipError_t hipStreamCreate(cudaStream_t *stream) { return done(cudaStreamCreate(stream)); }

EXPORT hipError_t hipStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    return done(cudaStreamCreateWithFlags(stream, flags));
}

EXPORT hipError_t hipStreamCreateWithPriority(cudaStream_t *stream, unsigned int flags,
                                              int priority)
{
    return done(cudaStreamCreateWithPriority(stream, flags, priority));
}

EXPORT hipError_t hipDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    return done(cudaDeviceGetStreamPriorityRange(least, greatest));
}

EXPORT hipError_t hipStreamDestroy(cudaStream_t stream) { return done(cudaStreamDestroy(stream)); }

EXPORT hipError_t hipStreamSynchronize(cudaStream_t stream)
{
    return done(cudaStreamSynchronize(stream));
}

EXPORT hipError_t hipStreamQuery(cudaStream_t stream) { return done(cudaStreamQuery(stream)); }

EXPORT hipError_t hipStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int flags)
{
    return done(cudaStreamWaitEvent(stream, event, flags));
}

EXPORT hipError_t hipEventCreate(cudaEvent_t *event) { return done(cudaEventCreate(event)); }

EXPORT hipError_t hipEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    flags &= ~EVENT_RELEASE_FLAGS;
    if (flags & ~EVENT_FLAGS)
        return fail(hipErrorInvalidValue);
    return done(cudaEventCreateWithFlags(event, flags));
}

EXPORT hipError_t hipEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    return done(cudaEventRecord(event, stream));
}

EXPORT hipError_t hipEventQuery(cudaEvent_t event) { return done(cudaEventQuery(event)); }

EXPORT hipError_t hipEventSynchronize(cudaEvent_t event)
{
    return done(cudaEventSynchronize(event));
}

EXPORT hipError_t hipEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t stop)
{
    return done(cudaEventElapsedTime(milliseconds, start, stop));
}

EXPORT hipError_t hipEventDestroy(cudaEvent_t event) { return done(cudaEventDestroy(event)); }

/* ------------------------------------------------------------------------------------------- */
/* Capture and graphs                                                                            */
/* ------------------------------------------------------------------------------------------- */

static const Pair CAPTURE_MODES[] = {
    {0, cudaStreamCaptureModeGlobal},
    {1, cudaStreamCaptureModeThreadLocal},
    {2, cudaStreamCaptureModeRelaxed},
};

static const Pair CAPTURE_STATES[] = {
    {0, cudaStreamCaptureStatusNone},
    {1, cudaStreamCaptureStatusActive},
    {2, cudaStreamCaptureStatusInvalidated},
};

/* HIP has two node types CUDA has not, before the batched memory operation. */
static const Pair GRAPH_NODE_TYPES[] = {
    {0, cudaGraphNodeTypeKernel},
    {1, cudaGraphNodeTypeMemcpy},
    {2, cudaGraphNodeTypeMemset},
    {3, cudaGraphNodeTypeHost},
    {4, cudaGraphNodeTypeGraph},
    {5, cudaGraphNodeTypeEmpty},
    {6, cudaGraphNodeTypeWaitEvent},
    {7, cudaGraphNodeTypeEventRecord},
    {8, cudaGraphNodeTypeExtSemaphoreSignal},
    {9, cudaGraphNodeTypeExtSemaphoreWait},
    {10, cudaGraphNodeTypeMemAlloc},
    {11, cudaGraphNodeTypeMemFree},
};

EXPORT hipError_t hipStreamBeginCapture(cudaStream_t stream, int mode)
{
    int cuda;
    if (!TO_CUDA(CAPTURE_MODES, mode, &cuda))
        return fail(hipErrorNotSupported);
    return done(cudaStreamBeginCapture(stream, (enum cudaStreamCaptureMode)cuda));
}

EXPORT hipError_t hipStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    return done(cudaStreamEndCapture(stream, graph));
}

EXPORT hipError_t hipStreamIsCapturing(cudaStream_t stream, int *state)
{
    enum cudaStreamCaptureStatus cuda;
    hipError_t status = done(cudaStreamIsCapturing(stream, &cuda));
    if (status == hipSuccess && !TO_HIP(CAPTURE_STATES, cuda, state))
        return fail(hipErrorNotSupported);
    return status;
}

/* CUDA reports no error node and no log here any more: both are left empty. */
EXPORT hipError_t hipGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                      cudaGraphNode_t *error_node, char *log, size_t log_bytes)
{
    if (error_node)
        *error_node = NULL;
    if (log && log_bytes)
        log[0] = '\0';
    return done(cudaGraphInstantiateWithFlags(exec, graph, 0));
}

EXPORT hipError_t hipGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                               unsigned long long flags)
{
    return done(cudaGraphInstantiateWithFlags(exec, graph, flags));
}

EXPORT hipError_t hipGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    return done(cudaGraphLaunch(exec, stream));
}

EXPORT hipError_t hipGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    return done(cudaGraphUpload(exec, stream));
}

EXPORT hipError_t hipGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return done(cudaGraphGetNodes(graph, nodes, count));
}

EXPORT hipError_t hipGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t *from, cudaGraphNode_t *to,
                                   size_t *count)
{
#if CUDART_VERSION >= 13000
    return done(cudaGraphGetEdges(graph, from, to, NULL, count));
#else
    return done(cudaGraphGetEdges(graph, from, to, count));
#endif
}

EXPORT hipError_t hipGraphNodeGetType(cudaGraphNode_t node, int *type)
{
    enum cudaGraphNodeType cuda;
    hipError_t status = done(cudaGraphNodeGetType(node, &cuda));
    if (status == hipSuccess && !TO_HIP(GRAPH_NODE_TYPES, cuda, type))
        return fail(hipErrorNotSupported);
    return status;
}

EXPORT hipError_t hipGraphExecDestroy(cudaGraphExec_t exec)
{
    return done(cudaGraphExecDestroy(exec));
}

EXPORT hipError_t hipGraphDestroy(cudaGraph_t graph) { return done(cudaGraphDestroy(graph)); }

/* ------------------------------------------------------------------------------------------- */
/* Modules and kernels                                                                           */
/* ------------------------------------------------------------------------------------------- */

enum { LAUNCH_BUFFER_POINTER = 1, LAUNCH_BUFFER_SIZE = 2, LAUNCH_END = 3 };

/* The attributes of the launch limits: the same list in hipFuncAttribute and
 * hipFunction_attribute. */
static const Pair FUNCTION_ATTRIBUTES[] = {
    {0, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK},
    {1, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES},
    {2, CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES},
    {3, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES},
    {4, CU_FUNC_ATTRIBUTE_NUM_REGS},
    {5, CU_FUNC_ATTRIBUTE_PTX_VERSION},
    {6, CU_FUNC_ATTRIBUTE_BINARY_VERSION},
    {7, CU_FUNC_ATTRIBUTE_CACHE_MODE_CA},
    {8, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES},
    {9, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT},
};

EXPORT hipError_t hipModuleLoadData(CUmodule *module, const void *image)
{
    DRIVER_CALL(cuModuleLoadData(module, image));
}

EXPORT hipError_t hipModuleUnload(CUmodule module) { DRIVER_CALL(cuModuleUnload(module)); }

EXPORT hipError_t hipModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    DRIVER_CALL(cuModuleGetFunction(function, module, name));
}

/* Copies HIP's list of {key, value} pairs as CUDA's, which ends with another key. */
static bool translate_extra(void *const *hip, void *cuda[5])
{
    size_t i = 0;
    while ((uintptr_t)hip[i] != LAUNCH_END) {
        if (i == 4)
            return false;
        if ((uintptr_t)hip[i] == LAUNCH_BUFFER_POINTER)
            cuda[i] = CU_LAUNCH_PARAM_BUFFER_POINTER;
        else if ((uintptr_t)hip[i] == LAUNCH_BUFFER_SIZE)
            cuda[i] = CU_LAUNCH_PARAM_BUFFER_SIZE;
        else
            return false;
        cuda[i + 1] = hip[i + 1];
        i += 2;
    }
    cuda[i] = CU_LAUNCH_PARAM_END;
    return true;
}

EXPORT hipError_t hipModuleLaunchKernel(CUfunction function, unsigned int grid_x,
                                        unsigned int grid_y, unsigned int grid_z,
                                        unsigned int block_x, unsigned int block_y,
                                        unsigned int block_z, unsigned int shared_bytes,
                                        cudaStream_t stream, void **parameters, void **extra)
{
    void *translated[5];
    if (extra && !translate_extra(extra, translated))
        return fail(hipErrorInvalidValue);
    DRIVER_CALL(cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                               shared_bytes, stream, parameters, extra ? translated : NULL));
}

EXPORT hipError_t hipFuncSetAttribute(const void *function, int attribute, int value)
{
    int cuda;
    if (!TO_CUDA(FUNCTION_ATTRIBUTES, attribute, &cuda))
        return fail(hipErrorNotSupported);
    DRIVER_CALL(cuFuncSetAttribute((CUfunction)(uintptr_t)function, (CUfunction_attribute)cuda,
                                   value));
}

EXPORT hipError_t hipFuncGetAttribute(int *value, int attribute, CUfunction function)
{
    int cuda;
    if (!TO_CUDA(FUNCTION_ATTRIBUTES, attribute, &cuda))
        return fail(hipErrorNotSupported);
    DRIVER_CALL(cuFuncGetAttribute(value, (CUfunction_attribute)cuda, function));
}

EXPORT hipError_t hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks,
                                                                     CUfunction function,
                                                                     int block_size,
                                                                     size_t shared_bytes)
{
    DRIVER_CALL(cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks, function, block_size,
                                                            shared_bytes));
}
