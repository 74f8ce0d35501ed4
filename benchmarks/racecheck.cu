// Why compute-sanitizer's racecheck reports hazards in the attention kernel for Hopper.
//
//     nvcc -arch=sm_90 -O2 -o /tmp/racecheck benchmarks/racecheck.cu
//     for n in 0 1 3; do compute-sanitizer --tool racecheck /tmp/racecheck $n; done
//
// A block hands work to its warps as Triton's warp specialization does: warp 0 writes a state byte for each
// worker warp, all threads pass barrier 1, the worker warps read their bytes and work, all threads pass barrier 1
// again. Every access of `state` is separated from every conflicting one by a barrier of the whole block, so there is
// no race. `LOCAL` is how many barriers of their own the first four warps pass while they work.
// With 0 racecheck reports nothing, with 1 or more it reports the writes and reads of `state` as hazards.

#include <cstdio>
#include <cstdlib>

__device__ void block_barrier() { asm volatile("barrier.sync 1;" ::: "memory"); }
__device__ void own_barrier() { asm volatile("barrier.sync 2, 128;" ::: "memory"); }

enum { ROLES = 2, END = 9 };

template <int LOCAL> __global__ void dispatch(int *out, int rounds) {
    __shared__ unsigned char shared[8];
    volatile unsigned char *state = shared;
    int t = threadIdx.x, warp = t / 32, *to = out + blockIdx.x * 512;
    if (warp < 4) {
        for (int round = 0; round < rounds; round++) {
            if (warp == 0)
                for (int worker = 0; worker < 4; worker++)
                    state[worker] = worker % ROLES;
            block_barrier(); // the workers begin
            to[t] = round;
            for (int n = 0; n < LOCAL; n++)
                own_barrier();
            to[t + 3] = round;
            block_barrier(); // the workers are done
        }
        if (warp == 0)
            for (int worker = 0; worker < 4; worker++)
                state[worker] = END;
        block_barrier();
    } else {
        while (true) {
            block_barrier();
            int role = state[warp - 4];
            if (role == END)
                break;
            if (role == 0) {
                to[t] = 10;
                block_barrier();
            } else {
                to[t + 1] = 20 * t;
                block_barrier();
            }
        }
    }
}

int main(int count, char **arguments) {
    int *out, local = count > 1 ? atoi(arguments[1]) : 1;
    cudaMalloc(&out, 1 << 16);
    if (local == 0)
        dispatch<0><<<2, 256>>>(out, 2);
    else if (local == 1)
        dispatch<1><<<2, 256>>>(out, 2);
    else
        dispatch<3><<<2, 256>>>(out, 2);
    printf("%d barriers of their own: %s\n", local, cudaGetErrorString(cudaDeviceSynchronize()));
    return 0;
}
