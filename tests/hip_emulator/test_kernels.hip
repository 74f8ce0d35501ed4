// The kernels that tests/test_hip_emulator.py compiles through hiprtc.
#include <hip/hip_runtime.h>

#define BLOCK 256

extern "C" __global__ void increment(float* x, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += 1.0f;
}

extern "C" __global__ void scale(const float* __restrict__ x, float* __restrict__ y, float by,
                                 int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * by;
}

extern "C" __global__ void add(const float* x, const float* y, float* z, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) z[i] = x[i] + y[i];
}

__device__ __forceinline__ float wave_sum(float value) {
    for (int offset = warpSize / 2; offset > 0; offset /= 2) value += __shfl_xor(value, offset);
    return value;
}

// The sum of a block: shuffles in each wavefront, then through shared memory.
extern "C" __global__ __launch_bounds__(BLOCK) void block_sum(const float* x, float* sums) {
    __shared__ float partial[BLOCK / 32];
    const int wave = threadIdx.x / warpSize;
    const float sum = wave_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x % warpSize == 0) partial[wave] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        float total = 0;
        for (unsigned i = 0; i < blockDim.x / warpSize; ++i) total += partial[i];
        sums[blockIdx.x] = total;
    }
}

extern "C" __global__ void reverse(const float* x, float* y) {
    extern __shared__ __align__(16) float staged[];
    staged[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = staged[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void reverse_without_barrier(const float* x, float* y) {
    HIP_DYNAMIC_SHARED(float, unsynchronized)
    unsynchronized[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = unsynchronized[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void overflow_shared() {
    extern __shared__ char bytes[];
    bytes[threadIdx.x] = 1;
}

extern "C" __global__ void read_undefined_shared(float* y) {
    __shared__ float left_over;
    y[blockIdx.x] = left_over;
    left_over = 1.0f;
}

// Half of the threads leave before the last barrier.
extern "C" __global__ void early_exit(int* count) {
    __shared__ int arrived;
    if (threadIdx.x == 0) arrived = 0;
    __syncthreads();
    if (threadIdx.x % 2) return;
    atomicAdd(&arrived, 1);
    __syncthreads();
    if (threadIdx.x == 0) *count = arrived;
}

extern "C" __global__ void shuffles(int* out) {
    const int lane = threadIdx.x;
    int* row = out + lane * 8;
    row[0] = __shfl(lane, 3);
    row[1] = __shfl_up(lane, 1);
    row[2] = __shfl_down(lane, 2);
    row[3] = __shfl_xor(lane, 5);
    row[4] = __shfl_down(lane, 1, 8);
    row[5] = __shfl_sync(~0ull, lane, 1, 4);
    row[6] = __popcll(__ballot(lane % 3 == 0));
    row[7] = __any(lane == 1) * 2 + __all(lane >= 0);
}

// Only the first half of each wavefront takes part; the rest already waits at the barrier.
extern "C" __global__ void divergent_shuffle(int* out) {
    int value = -1;
    if (threadIdx.x % warpSize < warpSize / 2) value = __shfl_xor((int)threadIdx.x, 1);
    __syncthreads();
    out[threadIdx.x] = value;
}

extern "C" __global__ void places(int4* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] =
        make_int4(threadIdx.x, threadIdx.y, threadIdx.z, block);
}

extern "C" __global__ void half_round_trip(const float* x, float* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        y[i] = __emulator_half_to_float(__emulator_float_to_half(x[i]));
    }
}

extern "C" __global__ void mixed_arguments(char a, double b, short c, float4 d, double* out) {
    *out = a + b + c + d.x + d.y + d.z + d.w;
}

extern "C" __global__ void atomics(int* cells) {
    const int i = threadIdx.x;
    atomicAdd(&cells[0], i);
    atomicMax(&cells[1], i);
    atomicMin(&cells[2], i);
    atomicOr(&cells[3], 1 << (i % 8));
    atomicCAS(&cells[4], 0, i + 1);
}

// One block a row of n.
extern "C" __global__ __launch_bounds__(BLOCK) void softmax_half(const unsigned short* x,
                                                                 unsigned short* y, int n) {
    __shared__ float partial[BLOCK];
    const unsigned short* row = x + (size_t)blockIdx.x * n;
    float largest = -INFINITY;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        largest = fmaxf(largest, __emulator_half_to_float(row[i]));
    }
    partial[threadIdx.x] = largest;
    __syncthreads();
    for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            partial[threadIdx.x] = max(partial[threadIdx.x], partial[threadIdx.x + step]);
        }
        __syncthreads();
    }
    largest = partial[0];
    __syncthreads();
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        sum += __expf(__emulator_half_to_float(row[i]) - largest);
    }
    partial[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned step = blockDim.x / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
        __syncthreads();
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float e = __expf(__emulator_half_to_float(row[i]) - largest);
        y[(size_t)blockIdx.x * n + i] = __emulator_float_to_half(e / partial[0]);
    }
}

// Found by its lowered name only.
__global__ void mangled(float* x) { *x = 1; }

template <class V>
__global__ void fill(V* x, V value) {
    x[threadIdx.x] = value;
}
