/* A stand-in for CUDA's header of the same name: the words of CUDA C++ that gfl_kernels.cuh and gfl_kernels.cu use, for a
 * host compiler. Threads of a block are fibers of one host thread, see emulation.cpp. Compile with -ffp-contract=off. */
#ifndef GFL_CUDA_EMULATION_H
#define GFL_CUDA_EMULATION_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GFL_EMULATION
#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
/* One block runs at a time, so that its shared memory is static; the section lets emulation.cpp overwrite all of it before a
 * block starts, as no kernel may count on what is in there. */
#define __shared__ static __attribute__((section("gfl_shared")))
#define GFL_COUNT(what, number) gfl_emulation::count(gfl_emulation::work.what, number)
#ifdef GFL_TRAFFIC /* see traffic.h; build it with -fsanitize=thread */
#define GFL_UNCOUNTED __attribute__((no_sanitize("thread")))
#else
#define GFL_UNCOUNTED
#endif

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace gfl_emulation {

/* What a kernel did in all its launches, and the most that one of its blocks did; the names are those that GFL_COUNT takes.
 * Transactions and steps as in traffic.h, and only counted with GFL_TRAFFIC. */
struct Work {
    uint64_t launches, blocks, elements_read, keys_written, edges_decoded, ious;
    uint64_t shared, global;                          /* transactions */
    uint64_t block_steps, block_shared, block_global; /* each of the block that has the most */
};
extern Work work; /* of the kernel that runs */
void step();

inline void count(uint64_t &counter, uint64_t number) {
    counter += number;
    if (&counter == &work.ious) step();
}

extern dim3 thread_index, block_index, block_size, grid_size; /* of the thread that runs */

void wait_for_block();
bool any_of_block(bool own);

enum WarpOperation { SYNC, BALLOT, SHUFFLE };
/* Wait for the other lanes; returns what each of them brought, valid until this thread's next operation. */
const unsigned *exchange(WarpOperation operation, unsigned mask, unsigned own);
unsigned lane();

inline float half_to_float(unsigned short bits) {
    const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf((float)fraction, -24);
    const unsigned wide = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

}  // namespace gfl_emulation

#define threadIdx gfl_emulation::thread_index
#define blockIdx gfl_emulation::block_index
#define blockDim gfl_emulation::block_size
#define gridDim gfl_emulation::grid_size

inline void __syncthreads() { gfl_emulation::wait_for_block(); }
inline int __syncthreads_or(int own) { return gfl_emulation::any_of_block(own != 0); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { gfl_emulation::exchange(gfl_emulation::SYNC, mask, 0); }

inline unsigned __ballot_sync(unsigned mask, int own) {
    const unsigned *all = gfl_emulation::exchange(gfl_emulation::BALLOT, mask, own != 0);
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i) votes |= all[i] << i;
    return votes;
}
inline unsigned __shfl_sync(unsigned mask, unsigned own, int from) {
    return gfl_emulation::exchange(gfl_emulation::SHUFFLE, mask, own)[from % 32];
}
inline unsigned __shfl_up_sync(unsigned mask, unsigned own, unsigned step) {
    const unsigned *all = gfl_emulation::exchange(gfl_emulation::SHUFFLE, mask, own), lane = gfl_emulation::lane();
    return all[lane >= step ? lane - step : lane];
}
inline unsigned __shfl_down_sync(unsigned mask, unsigned own, unsigned step) {
    const unsigned *all = gfl_emulation::exchange(gfl_emulation::SHUFFLE, mask, own), lane = gfl_emulation::lane();
    return all[lane + step < 32 ? lane + step : lane];
}
inline unsigned __shfl_xor_sync(unsigned mask, unsigned own, int step) {
    return gfl_emulation::exchange(gfl_emulation::SHUFFLE, mask, own)[gfl_emulation::lane() ^ step];
}

inline unsigned atomicAdd(unsigned *target, unsigned value) {
    const unsigned before = *target;
    *target += value;
    return before;
}
inline unsigned atomicOr(unsigned *target, unsigned value) {
    const unsigned before = *target;
    *target |= value;
    return before;
}

inline unsigned atomicExch(unsigned *target, unsigned value) {
    const unsigned before = *target;
    *target = value;
    return before;
}

/* Blocks run one after another: what one wrote, all see. */
inline void __threadfence() {}
template <typename Value>
inline Value __ldcg(const Value *address) {
    return *address;
}

inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(unsigned value) { return value ? __builtin_clz(value) : 32; }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned bits) {
    return (unsigned)(((uint64_t)high << 32 | low) >> (bits & 31));
}
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The runtime calls of gfl_kernels.cu. Launches run at once; streams are ignored. */
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorLaunchFailure = 719,
};
typedef struct CUstream_st *cudaStream_t;
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_size,
                             cudaStream_t stream);

#endif
