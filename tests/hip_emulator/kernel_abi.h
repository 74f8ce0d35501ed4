/* What a compiled kernel module and the runtime tell each other. Included by both sides: the
   runtime in C++20, kernels through device/prelude.h in whatever standard they ask for. */
#pragma once

#include <stddef.h>

struct EmulatorParameter {
    unsigned offset;
    unsigned bytes;
    bool pointer;
};

struct EmulatorKernel {
    const char* name;       /* as hiprtcAddNameExpression or the source spells it */
    void* address;          /* must be what the symbol `name` resolves to */
    void (*run)(const char* arguments);  /* runs threads until next_thread() says stop */
    const EmulatorParameter* parameters;
    unsigned parameter_count;
    unsigned argument_bytes;
    unsigned max_threads;   /* of __launch_bounds__; 0 when there are none */
};

/* The module's variables that the runtime sets or reads. */
struct EmulatorModule {
    unsigned* thread_index; /* three each */
    unsigned* block_index;
    unsigned* block_dim;
    unsigned* grid_dim;
    int* wavefront;
    char* shared_begin;     /* the module's static __shared__ variables; null when none */
    char* shared_end;
    char* dynamic_shared;
    size_t dynamic_shared_capacity;
    const EmulatorKernel* kernels;
    size_t kernel_count;
};

/* The runtime's services to a running kernel. */
struct EmulatorRuntime {
    bool (*next_thread)();  /* makes the next thread of the block current */
    void (*barrier)();
    /* Meets the other lanes of the wavefront that are not waiting at a barrier: gives `bytes`
       (at most 16) from `mine`, takes those of `source_lane` into `theirs`, and returns which
       lanes took part. */
    unsigned long long (*exchange)(const void* mine, size_t bytes, unsigned source_lane,
                                   void* theirs);
    unsigned (*lane)();
};

/* Every module exports `emulator_module` with this type. */
typedef const EmulatorModule* (*EmulatorModuleEntry)(const EmulatorRuntime*);
