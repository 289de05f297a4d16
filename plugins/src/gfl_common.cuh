/* What the kernels share: sizes, lists of candidates and their segments, keys, loads. */
#ifndef GFL_COMMON_CUH
#define GFL_COMMON_CUH

#include "gfl_kernels.h"

#define GFL_FILTER_THREADS 256
#define GFL_FILTER_TILE 4096 /* elements that a block reads at a time, 16 per thread */
#define GFL_GATHER_THREADS 1024
#define GFL_GATHER_BLOCKS 64 /* of an image at most: each adds up the histograms of all segments */
#define GFL_RANK_THREADS 256
#define GFL_RANK_GROUP 16 /* threads that compare a finalist with all others */
#define GFL_RANK_CHUNK 1024 /* finalists in shared memory at a time */
#define GFL_MASK_THREADS 128
#define GFL_SUPPRESS_THREADS 512
#define GFL_RESIZE_BLOCK_X 32
#define GFL_RESIZE_BLOCK_Y 8

#define GFL_SEGMENTS 256 /* of an image, about, as long as they are of GFL_SEGMENT_TILES tiles or less */
#define GFL_SEGMENT_TILES 8
#define GFL_BINS 64 /* of a segment's histogram */
#define GFL_SPARE_FINALISTS 1024 /* that enter the ranking beside max_candidates, as bins are no exact cut */
#define GFL_MASK_CANDIDATES 4096 /* whose overlaps the mask has; those after them are compared one by one */
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

/* Candidates whose overlaps the mask has, as whole words. */
__host__ __device__ inline unsigned gfl_mask_candidates(const GflNmsParams &params) {
    const unsigned all = gfl_num_lists(params) * params.max_candidates;
    return ((all < GFL_MASK_CANDIDATES ? all : GFL_MASK_CANDIDATES) + GFL_WARP - 1) / GFL_WARP * GFL_WARP;
}

/* Of an image, those of all lists together; counts [N, L + 1] after the gathering. */
__device__ inline unsigned gfl_num_candidates(const GflNmsParams &params, const unsigned *counts, int image) {
    const int lists = gfl_num_lists(params);
    unsigned sum = 0;
    for (int list = 0; list < lists; ++list) {
        const unsigned count = counts[image * (lists + 1) + list];
        sum += count < (unsigned)params.max_candidates ? count : (unsigned)params.max_candidates;
    }
    return sum;
}

/* ---- Segments ---- */

/* Part of a list of an image, which is one block's of the filter: elements of the whole batch. Tiles begin at whole vectors of
 * 16 bytes, lists need not: loads of a list's first tile may begin before the list. */
typedef struct {
    size_t first, begin, end; /* where its first tile begins, its first element lies, and its last one ends */
    int list;
} GflSegment;

/* Tiles of an image, at most. */
__host__ __device__ inline unsigned gfl_max_tiles(const GflNmsParams &params) {
    return (unsigned)params.num_anchors * (unsigned)params.num_classes / GFL_FILTER_TILE + 2 * gfl_num_lists(params);
}

__host__ __device__ inline unsigned gfl_segment_tiles(const GflNmsParams &params) {
    const unsigned tiles = (gfl_max_tiles(params) + GFL_SEGMENTS - 1) / GFL_SEGMENTS;
    return tiles < GFL_SEGMENT_TILES ? tiles : GFL_SEGMENT_TILES;
}

/* Segments of an image, at most; never fewer for a larger image. */
__host__ __device__ inline unsigned gfl_max_segments(const GflNmsParams &params) {
    const unsigned tiles = gfl_max_tiles(params);
    if (tiles <= GFL_SEGMENTS) return tiles;
    const unsigned long_ones = (tiles + GFL_SEGMENT_TILES - 1) / GFL_SEGMENT_TILES;
    return (long_ones > GFL_SEGMENTS ? long_ones : GFL_SEGMENTS) + gfl_num_lists(params);
}

__device__ inline int gfl_vector(const GflNmsParams &params) { return params.dtype == GFL_FLOAT16 ? 8 : 4; }

__device__ inline bool gfl_find_segment(const GflNmsParams &params, int image, unsigned index, GflSegment *found) {
    const size_t length = (size_t)gfl_segment_tiles(params) * GFL_FILTER_TILE;
    size_t begin = (size_t)image * params.num_anchors * params.num_classes;
    for (int list = 0; list < gfl_num_lists(params); ++list) {
        const size_t end = begin + (size_t)gfl_list_anchors(params, list) * params.num_classes;
        const size_t first = begin - begin % gfl_vector(params) + index * length;
        if (first < end) {
            found->first = first;
            found->begin = first > begin ? first : begin;
            found->end = first + length < end ? first + length : end;
            found->list = list;
            return true;
        }
        index -= (unsigned)((end - (begin - begin % gfl_vector(params)) + length - 1) / length);
        begin = end;
    }
    return false;
}

/* The element of the batch that bit `bit` of this thread stands for, see gfl_passed. */
__device__ inline size_t gfl_element(size_t tile, int bit, int lanes) {
    return tile + (size_t)(bit / lanes * GFL_FILTER_THREADS + threadIdx.x) * lanes + bit % lanes;
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
