/* A HIP runtime with one device on which nearly everything fails, each call in its own way.
 * Serves as libamdhip64, libhiprtc and libhipblas at once. */
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

static int pending; /* what hipGetLastError returns next */

static int fail(int code)
{
    pending = code;
    return code;
}

EXPORT int hipGetDeviceCount(int *count)
{
    *count = 1;
    return 0;
}

EXPORT int hipGetDevicePropertiesR0600(char *properties, int device)
{
    (void)device;
    memset(properties, 0, 1472);
    strcpy(properties, "Failing device");
    strcpy(properties + 1160, "none"); /* gcnArchName */
    return 0;
}

EXPORT int hipRuntimeGetVersion(int *version)
{
    *version = 70253211;
    return 0;
}

EXPORT int hipGetLastError(void)
{
    int code = pending;
    pending = 0;
    return code;
}

EXPORT const char *hipGetErrorName(int code)
{
    return code == 2 ? "hipErrorOutOfMemory" : "hipErrorInvalidHandle";
}

EXPORT const char *hipGetErrorString(int code)
{
    return code == 2 ? "out of memory" : "invalid resource handle";
}

EXPORT int hipMalloc(void **pointer, unsigned long bytes)
{
    (void)bytes;
    *pointer = 0;
    return fail(2); /* hipErrorOutOfMemory */
}

EXPORT int hipSetDevice(int device)
{
    (void)device;
    return fail(400); /* hipErrorInvalidHandle */
}

EXPORT int hipEventQuery(void *event)
{
    return event ? 0 : 600; /* hipErrorNotReady */
}

EXPORT int hipEventRecord(void *event, void *stream)
{
    (void)stream;
    return event ? 0 : fail(400);
}

EXPORT int hipDeviceSynchronize(void)
{
    return 77; /* a code no enumeration has */
}

EXPORT int hipblasCreate(void **handle)
{
    *handle = 0;
    return 2; /* HIPBLAS_STATUS_ALLOC_FAILED */
}

EXPORT int hipblasDestroy(void *handle)
{
    (void)handle;
    return 9; /* HIPBLAS_STATUS_HANDLE_IS_NULLPTR */
}

static const char LOG[] = "k.hip:1: expected ';'";

EXPORT int hiprtcCreateProgram(void **program, const char *source, const char *name, int count,
                               const char *const *headers, const char *const *names)
{
    (void)headers, (void)names;
    *program = (void *)LOG;
    return strcmp(source, "kernel") == 0 && strcmp(name, "k.hip") == 0 && count == 0 ? 0 : 3;
}

EXPORT int hiprtcCompileProgram(void *program, int count, const char *const *options)
{
    (void)program;
    return count == 1 && strcmp(options[0], "-O3") == 0 ? 6 : 5; /* HIPRTC_ERROR_COMPILATION */
}

EXPORT const char *hiprtcGetErrorString(int code)
{
    return code == 6 ? "HIPRTC_ERROR_COMPILATION" : "other";
}

EXPORT int hiprtcGetProgramLogSize(void *program, unsigned long *bytes)
{
    (void)program;
    *bytes = sizeof LOG;
    return 0;
}

EXPORT int hiprtcGetProgramLog(void *program, char *log)
{
    (void)program;
    memcpy(log, LOG, sizeof LOG);
    return 0;
}

EXPORT int hiprtcDestroyProgram(void **program)
{
    int known = *program == (void *)LOG;
    *program = 0;
    return known ? 0 : 4;
}
