/* libhiprtc on top of NVRTC: clang's options are translated, the code is a CUBIN. See hip.c. */
#define _DEFAULT_SOURCE /* strdup */
#include <cuda_runtime_api.h>
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "translate.h"

#ifndef CUDA_INCLUDE_OPTIONS
#error "CUDA_INCLUDE_OPTIONS must list the include options for NVRTC: \"-I/dir\", \"-I/dir\", ..."
#endif

typedef int hiprtcResult;

enum {
    HIPRTC_SUCCESS = 0,
    HIPRTC_ERROR_OUT_OF_MEMORY = 1,
    HIPRTC_ERROR_INVALID_INPUT = 3,
    HIPRTC_ERROR_INVALID_OPTION = 5,
    HIPRTC_ERROR_INTERNAL_ERROR = 11,
};

/* What a HIP source may include. hiprtc includes the first of them by itself, and so does
 * hiprtcCompileProgram below. Shuffles and votes without a mask are HIP's: CUDA still
 * declares them and has no code for them. */
static const char *const HEADER_NAMES[] = {
    "hip/hip_runtime.h",
    "hip/hip_fp16.h",
    "hip/hip_bf16.h",
};

static const char *const HEADER_TEXTS[] = {
    "#pragma once\n"
    "#define __HIP_PLATFORM_NVIDIA__ 1\n"
    "#define __HIPCC_RTC__ 1\n"
    "template <class T> __device__ inline T hip_shfl(T value, int lane, int width = warpSize)\n"
    "{ return __shfl_sync(0xffffffffu, value, lane, width); }\n"
    "template <class T> __device__ inline T hip_shfl_up(T value, int d, int width = warpSize)\n"
    "{ return __shfl_up_sync(0xffffffffu, value, d, width); }\n"
    "template <class T> __device__ inline T hip_shfl_down(T value, int d, int width = warpSize)\n"
    "{ return __shfl_down_sync(0xffffffffu, value, d, width); }\n"
    "template <class T> __device__ inline T hip_shfl_xor(T value, int mask, int width = warpSize)\n"
    "{ return __shfl_xor_sync(0xffffffffu, value, mask, width); }\n"
    "#define __shfl hip_shfl\n"
    "#define __shfl_up hip_shfl_up\n"
    "#define __shfl_down hip_shfl_down\n"
    "#define __shfl_xor hip_shfl_xor\n"
    "#define __any(p) __any_sync(0xffffffffu, p)\n"
    "#define __all(p) __all_sync(0xffffffffu, p)\n"
    "#define __ballot(p) ((unsigned long long)__ballot_sync(0xffffffffu, p))\n",

    "#pragma once\n"
    "#include <cuda_fp16.h>\n",

    "#pragma once\n"
    "#include <cuda_bf16.h>\n"
    "typedef __nv_bfloat16 __hip_bfloat16;\n"
    "typedef __nv_bfloat162 __hip_bfloat162;\n",
};

/* Clang options by prefix, first match wins. `cuda` replaces the prefix; NULL drops the option;
 * an option without a row is passed on. */
static const struct {
    const char *hip, *cuda;
} COMPILE_OPTIONS[] = {
    {"--offload-arch=", "--gpu-architecture="},
    {"-ffp-contract=off", "--fmad=false"},
    {"-ffp-contract=fast", "--fmad=true"},
    {"-ffp-contract=on", "--fmad=true"},
    {"-ffast-math", "--use_fast_math"},
    {"-f", NULL},
    {"-m", NULL},
    {"-O", NULL},
    {"-W", NULL},
    {"-g", NULL},
};

/* Before the caller's options. */
static const char *const OWN_OPTIONS[] = {
    "--pre-include=hip/hip_runtime.h",
    CUDA_INCLUDE_OPTIONS,
};

/* The numbers up to HIPRTC_ERROR_INTERNAL_ERROR agree; CUDA went on counting. */
static hiprtcResult rtc_done(nvrtcResult cuda)
{
    return (int)cuda <= HIPRTC_ERROR_INTERNAL_ERROR ? (int)cuda : HIPRTC_ERROR_INTERNAL_ERROR;
}

EXPORT hiprtcResult hiprtcVersion(int *major, int *minor)
{
    return rtc_done(nvrtcVersion(major, minor));
}

EXPORT const char *hiprtcGetErrorString(hiprtcResult result)
{
    return nvrtcGetErrorString((nvrtcResult)result);
}

EXPORT hiprtcResult hiprtcCreateProgram(nvrtcProgram *program, const char *source,
                                        const char *name, int header_count,
                                        const char *const *headers, const char *const *names)
{
    size_t given = header_count > 0 ? (size_t)header_count : 0, own = LENGTH(HEADER_NAMES);
    const char **texts = calloc(2 * (given + own), sizeof *texts), **titles;
    hiprtcResult result;
    if (!texts)
        return HIPRTC_ERROR_OUT_OF_MEMORY;
    titles = texts + given + own;
    if (given) {
        memcpy(texts, headers, given * sizeof *texts);
        memcpy(titles, names, given * sizeof *titles);
    }
    memcpy(texts + given, HEADER_TEXTS, sizeof HEADER_TEXTS);
    memcpy(titles + given, HEADER_NAMES, sizeof HEADER_NAMES);
    result = rtc_done(
        nvrtcCreateProgram(program, source, name, (int)(given + own), texts, titles));
    free(texts);
    return result;
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* A fresh string with NVRTC's spelling of a clang option, or an empty one to drop it. */
static char *translate_option(const char *option)
{
    for (size_t i = 0; i < LENGTH(COMPILE_OPTIONS); i++) {
        const char *prefix = COMPILE_OPTIONS[i].hip, *cuda = COMPILE_OPTIONS[i].cuda;
        char *text;
        if (!starts_with(option, prefix))
            continue;
        if (!cuda)
            return strdup("");
        text = malloc(strlen(cuda) + strlen(option) + 1);
        if (text)
            sprintf(text, "%s%s", cuda, option + strlen(prefix));
        return text;
    }
    return strdup(option);
}

/* A fresh string with the option for the thread's current device, which is what hiprtc compiles for
 * by default. NULL without a device. */
static char *current_architecture(void)
{
    int device, major, minor;
    char text[64];
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        return NULL;
    snprintf(text, sizeof text, "--gpu-architecture=sm_%d%d", major, minor);
    return strdup(text);
}

/* OWN_OPTIONS, then fresh strings. */
typedef struct {
    const char **items;
    size_t count;
} OptionList;

static void free_options(OptionList *list)
{
    for (size_t i = LENGTH(OWN_OPTIONS); i < list->count; i++)
        free((char *)list->items[i]);
    free(list->items);
}

static hiprtcResult translate_options(OptionList *list, size_t count, const char *const *options)
{
    bool has_architecture = false;
    char *text;
    list->items = calloc(LENGTH(OWN_OPTIONS) + count + 1, sizeof *list->items);
    if (!list->items)
        return HIPRTC_ERROR_OUT_OF_MEMORY;
    memcpy(list->items, OWN_OPTIONS, sizeof OWN_OPTIONS);
    list->count = LENGTH(OWN_OPTIONS);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(options[i], "-mllvm") == 0) { /* for AMD's back end, with an argument */
            i++;
            continue;
        }
        text = translate_option(options[i]);
        if (!text)
            return HIPRTC_ERROR_OUT_OF_MEMORY;
        if (!*text) {
            free(text);
            continue;
        }
        has_architecture |= starts_with(text, "--gpu-architecture=") || starts_with(text, "-arch=");
        list->items[list->count++] = text;
    }
    if (has_architecture)
        return HIPRTC_SUCCESS;
    text = current_architecture();
    if (!text)
        return HIPRTC_ERROR_INVALID_OPTION;
    list->items[list->count++] = text;
    return HIPRTC_SUCCESS;
}

EXPORT hiprtcResult hiprtcCompileProgram(nvrtcProgram program, int option_count,
                                         const char *const *options)
{
    OptionList list = {NULL, 0};
    size_t count = option_count > 0 ? (size_t)option_count : 0;
    hiprtcResult result = translate_options(&list, count, options);
    if (result == HIPRTC_SUCCESS)
        result = rtc_done(nvrtcCompileProgram(program, (int)list.count, list.items));
    free_options(&list);
    return result;
}

EXPORT hiprtcResult hiprtcGetProgramLogSize(nvrtcProgram program, size_t *bytes)
{
    return rtc_done(nvrtcGetProgramLogSize(program, bytes));
}

EXPORT hiprtcResult hiprtcGetProgramLog(nvrtcProgram program, char *log)
{
    return rtc_done(nvrtcGetProgramLog(program, log));
}

EXPORT hiprtcResult hiprtcGetCodeSize(nvrtcProgram program, size_t *bytes)
{
    return rtc_done(nvrtcGetCUBINSize(program, bytes));
}

EXPORT hiprtcResult hiprtcGetCode(nvrtcProgram program, char *code)
{
    return rtc_done(nvrtcGetCUBIN(program, code));
}

EXPORT hiprtcResult hiprtcDestroyProgram(nvrtcProgram *program)
{
    return program ? rtc_done(nvrtcDestroyProgram(program)) : HIPRTC_ERROR_INVALID_INPUT;
}
