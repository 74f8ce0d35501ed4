// libroctx64.so on top of NVTX: the ranges that graphexec marks for profilers.
//
// NVTX 3 is headers only. Its functions do nothing until a profiler names the library to call in
// NVTX_INJECTION64_PATH.
#include <nvtx3/nvToolsExt.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int roctxRangePushA(const char *message);
EXPORT int roctxRangePop(void);

int roctxRangePushA(const char *message) { return nvtxRangePushA(message); }

int roctxRangePop(void) { return nvtxRangePop(); }
