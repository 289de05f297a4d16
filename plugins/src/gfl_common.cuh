/* What the kernels share: sizes, lists of candidates and their segments, keys, loads. */
#ifndef GFL_COMMON_CUH
#define GFL_COMMON_CUH

#include "gfl_kernels.h"

#define GFL_FILTER_THREADS 512
#define GFL_FILTER_TILE 8192 /* elements that a block looks through at a time, 16 per thread */
#define GFL_RANK_THREADS 512
#define GFL_RANK_FINALISTS 16 /* that a block ranks, a warp each */
#define GFL_RANK_CHUNK 2048 /* finalists in shared memory at a time */
#define GFL_SUPPRESS_THREADS 1024
#define GFL_RESIZE_BLOCK_X 32
#define GFL_RESIZE_BLOCK_Y 8

#define GFL_SEGMENTS 256 /* of an image, about; one more at both ends of each list */
#define GFL_SEGMENT_STEP 512 /* elements that a segment has, at least, and a multiple of it */
#define GFL_BINS 32 /* of a segment's keys, by score */
#define GFL_SPARE_FINALISTS 1024 /* that enter the ranking beside max_candidates, as bins are no exact cut */
#define GFL_SPREAD_FROM 0.0009765625f
#define GFL_MAX_BINS 33 /* of an edge's distribution */
#define GFL_WARP 32
#define GFL_ALL_LANES 0xffffffffu
#define GFL_INFINITY __int_as_float(0x7f800000)

/* Counters of the work done, which only the emulation keeps. */
#ifndef GFL_EMULATION
#define GFL_COUNT(what, number)
#endif

typedef unsigned long long GflKey;

/* ---- Launches that overlap ---- */

/* From sm_90 on a kernel may be launched to begin while the one before it on the stream runs (programmatic dependent launch):
 * once all blocks of that one have let it, or have ended. It may neither read nor write what others do before it has waited for
 * their end, also blocks that have nothing to do, so that the kernel after it need not wait for anything else. */
__device__ inline void gfl_let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

__device__ inline void gfl_wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- Lists of candidates ---- */

__host__ __device__ inline int gfl_num_lists(const GflNmsParams &params) {
    return params.per_level ? params.num_levels : 1;
}

__device__ inline int gfl_level_columns(const GflNmsParams &params, int level) {
    return (params.input_width + params.strides[level] - 1) / params.strides[level];
}

__device__ inline int gfl_level_anchors(const GflNmsParams &params, int level) {
    const int stride = params.strides[level];
    return ((params.input_height + stride - 1) / stride) * gfl_level_columns(params, level);
}

__device__ inline int gfl_list_anchors(const GflNmsParams &params, int list) {
    return params.per_level ? gfl_level_anchors(params, list) : params.num_anchors;
}

__host__ __device__ inline unsigned gfl_max_finalists(const GflNmsParams &params) {
    return params.max_candidates + GFL_SPARE_FINALISTS;
}

/* ---- Segments ---- */

/* Part of a list of an image, which is one block's of the filter: elements of the whole batch. Segments begin at whole vectors
 * of 16 bytes, lists need not: loads of a list's first segment may begin before the list. */
typedef struct {
    size_t first, begin, end; /* where its first vector begins, its first element lies, and its last one ends */
    int list;
    unsigned index, segments; /* which one of its list it is, and of how many */
} GflSegment;

__host__ __device__ inline unsigned gfl_num_pairs(const GflNmsParams &params) {
    return (unsigned)params.num_anchors * (unsigned)params.num_classes;
}

__host__ __device__ inline unsigned gfl_segment_length(const GflNmsParams &params) {
    return (gfl_num_pairs(params) / (GFL_SEGMENTS * GFL_SEGMENT_STEP) + 1) * GFL_SEGMENT_STEP;
}

/* Segments of an image, at most; never fewer for a larger image. */
__host__ __device__ inline unsigned gfl_max_segments(const GflNmsParams &params) {
    const unsigned steps = gfl_num_pairs(params) / GFL_SEGMENT_STEP;
    return (steps < GFL_SEGMENTS ? steps : GFL_SEGMENTS) + 2 * gfl_num_lists(params);
}

__device__ inline bool gfl_find_segment(const GflNmsParams &params, int image, unsigned index, GflSegment *found) {
    const unsigned length = gfl_segment_length(params), lanes = params.dtype == GFL_FLOAT16 ? 8 : 4;
    size_t begin = (size_t)image * gfl_num_pairs(params);
    for (int list = 0; list < gfl_num_lists(params); ++list) {
        const unsigned lead = (unsigned)begin & (lanes - 1); /* elements of the first vector that are another list's */
        const unsigned size = lead + (unsigned)gfl_list_anchors(params, list) * (unsigned)params.num_classes;
        const unsigned segments = (size + length - 1) / length;
        if (index < segments) {
            found->first = begin - lead + (size_t)index * length;
            found->begin = index ? found->first : begin;
            found->end = begin - lead + (index + 1 < segments ? (size_t)(index + 1) * length : size);
            found->list = list;
            found->index = index;
            found->segments = segments;
            return true;
        }
        index -= segments;
        begin += size - lead;
    }
    return false;
}

/* ---- Keys ---- */

__device__ inline GflKey gfl_key(float score, unsigned pair) {
    return ((GflKey)__float_as_uint(score) << 32) | (unsigned)~pair;
}

__device__ inline float gfl_key_score(GflKey key) { return __uint_as_float((unsigned)(key >> 32)); }

__device__ inline unsigned gfl_key_pair(GflKey key) { return ~(unsigned)key; }

/* ---- Values ---- */

__device__ inline float gfl_half_to_float(unsigned short bits) {
#ifdef __CUDACC__
    float value; /* PTX, as NVRTC may run where cuda_fp16.h is not installed */
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    return gfl_emulation::half_to_float(bits);
#endif
}

__device__ inline float gfl_load(const void *values, size_t index, int dtype) {
    return dtype == GFL_FLOAT16 ? gfl_half_to_float(((const unsigned short *)values)[index])
                                : ((const float *)values)[index];
}

#endif
