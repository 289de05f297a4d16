/* Filter: from all scores to the keys of the pairs above the threshold, segment by segment. */
#ifndef GFL_CANDIDATES_CUH
#define GFL_CANDIDATES_CUH

#include "gfl_common.cuh"

/* ---- Scores ---- */

/* The float32 score whose comparison with the threshold decides; `values` hold scores or logits. */
__device__ inline float gfl_score(const GflNmsParams &params, const void *values, const void *quality, size_t element) {
    float score = gfl_load(values, element, params.dtype);
    if (params.score_kind == GFL_LOGITS) score = __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-score)));
    if (quality) score = __fmul_rn(score, gfl_load(quality, element / params.num_classes, params.dtype));
    return score;
}

/* No value at or below this can have a score above the threshold: most elements are done with one comparison. The margin
 * is far wider than the rounding errors of the sigmoid and the logarithms, also where 1 - threshold is small. */
__device__ inline float gfl_value_cut(const GflNmsParams &params) {
    const float threshold = params.score_threshold;
    if (params.score_kind == GFL_SCORES) return threshold;
    if (threshold >= 1.0f) return GFL_INFINITY;
    if (threshold < 1e-30f) return -GFL_INFINITY;
    return logf(threshold) - log1pf(-threshold) - (1e-3f + 1e-6f / (1.0f - threshold));
}

/* The bin of a score; never falls as scores rise. Bits of float32 are nearly a logarithm, which spreads scores, and the bins
 * share out those between the threshold and 1; scores below GFL_SPREAD_FROM need no bins. */
__device__ inline unsigned gfl_bin(const GflNmsParams &params, float score) {
    const unsigned low = __float_as_uint(fmaxf(params.score_threshold, GFL_SPREAD_FROM));
    const unsigned range = __float_as_uint(1.0f) - low, bits = __float_as_uint(score);
    if (bits <= low) return 0;
    const float place = __fmul_rn((float)(bits - low), __fdiv_rn((float)GFL_BINS, (float)range + 1.0f));
    return place < GFL_BINS - 1 ? (unsigned)place : GFL_BINS - 1;
}

/* ---- Filter ---- */

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define GFL_FILTER_BLOCKS 2 /* of a multiprocessor, which has 1024 threads */
#else
#define GFL_FILTER_BLOCKS 3
#endif

/* Value `i` of 16 bytes. */
template <int lanes>
__device__ inline float gfl_value(const uint4 &words, int i) {
    const unsigned word[4] = {words.x, words.y, words.z, words.w};
    if (lanes == 4) return __uint_as_float(word[i]);
    return gfl_half_to_float((unsigned short)(word[i / 2] >> (16 * (i % 2))));
}

/* Which of this thread's elements of a tile may be above the threshold, or are NaN. Bit r * lanes + i: element i of its
 * vector r. All whole vectors are loaded before one is looked at; elements beyond the segment's end are not touched. */
template <int lanes>
__device__ inline unsigned gfl_passed(const void *scores, float cut, const GflSegment &segment, size_t tile) {
    constexpr int vectors = GFL_FILTER_TILE / GFL_FILTER_THREADS / lanes, step = GFL_FILTER_THREADS * lanes;
    constexpr int dtype = lanes == 8 ? GFL_FLOAT16 : GFL_FLOAT32;
    const size_t own = tile + (size_t)threadIdx.x * lanes;
    uint4 words[vectors] = {};
#pragma unroll
    for (int r = 0; r < vectors; ++r)
        if (own + r * step + lanes <= segment.end) words[r] = ((const uint4 *)scores)[(own + r * step) / lanes];
    unsigned passed = 0;
#pragma unroll
    for (int r = 0; r < vectors; ++r) {
        const size_t element = own + r * step;
        const bool whole = element + lanes <= segment.end;
#pragma unroll
        for (int i = 0; i < lanes; ++i)
            if (whole && !(gfl_value<lanes>(words[r], i) <= cut)) passed |= 1u << (r * lanes + i);
        if (!whole)
            for (int i = 0; i < lanes && element + i < segment.end; ++i)
                if (!(gfl_load(scores, element + i, dtype) <= cut)) passed |= 1u << (r * lanes + i);
        GFL_COUNT(elements_read, element < segment.end ? lanes : 0);
    }
    if (own < segment.begin) passed &= ~0u << (segment.begin - own); /* another list's, in the first vector */
    return passed;
}

typedef struct {
    unsigned short places[GFL_FILTER_TILE]; /* in the tile, of the elements that may be above the threshold */
    unsigned number;                        /* of them */
    unsigned bins[GFL_BINS];                /* keys of the segment; later where the next one of the bin goes */
} GflFound;

/* The block: the places of a tile's elements that may be above the threshold, in any order, so that its threads share the work
 * for them evenly, however close together they lie. A whole warp calls it. */
template <int lanes>
__device__ inline void gfl_append(unsigned passed, GflFound &found) {
    const unsigned lane = threadIdx.x % GFL_WARP, own = __popc(passed);
    if (!__ballot_sync(GFL_ALL_LANES, own != 0)) return;
    unsigned sum = own, base = 0;
#pragma unroll
    for (int step = 1; step < GFL_WARP; step *= 2) {
        const unsigned below = __shfl_up_sync(GFL_ALL_LANES, sum, step);
        if (lane >= (unsigned)step) sum += below;
    }
    if (lane == GFL_WARP - 1) base = atomicAdd(&found.number, sum);
    unsigned slot = __shfl_sync(GFL_ALL_LANES, base, GFL_WARP - 1) + sum - own;
    for (; passed; passed &= passed - 1) {
        const unsigned bit = __ffs(passed) - 1;
        found.places[slot++] =
            (unsigned short)((bit / lanes * GFL_FILTER_THREADS + threadIdx.x) * lanes + bit % lanes);
    }
}

/* The block: counts the keys of a tile by their bins. */
__device__ inline void gfl_count(const GflNmsParams &params, const void *scores, const void *quality, size_t tile,
                                 GflFound &found) {
    for (unsigned i = threadIdx.x; i < found.number; i += GFL_FILTER_THREADS) {
        float score = gfl_score(params, scores, quality, tile + found.places[i]);
        if (score <= params.score_threshold) continue;
        if (score != score) score = 0.0f; /* below every other */
        atomicAdd(&found.bins[gfl_bin(params, score)], 1u);
    }
}

/* The block: writes the keys of a tile to their bins' places. */
__device__ inline void gfl_place(const GflNmsParams &params, const void *scores, const void *quality, size_t tile,
                                 size_t image_begin, GflFound &found, GflKey *keys) {
    for (unsigned i = threadIdx.x; i < found.number; i += GFL_FILTER_THREADS) {
        const size_t element = tile + found.places[i];
        float score = gfl_score(params, scores, quality, element);
        if (score <= params.score_threshold) continue;
        if (score != score) score = 0.0f;
        keys[atomicAdd(&found.bins[gfl_bin(params, score)], 1u)] = gfl_key(score, (unsigned)(element - image_begin));
        GFL_COUNT(keys_written, 1);
    }
}

/* Of the lanes above this one, the sum of their values. */
__device__ inline unsigned gfl_sum_of_higher_lanes(unsigned value, unsigned lane) {
    unsigned sum = value;
#pragma unroll
    for (int step = 1; step < GFL_WARP; step *= 2) {
        const unsigned higher = __shfl_down_sync(GFL_ALL_LANES, sum, step);
        if (lane + step < GFL_WARP) sum += higher;
    }
    return sum - value;
}

/* `lanes` elements are 16 bytes. A segment of one tile, as most are, is read once. */
template <int lanes>
__device__ inline void gfl_filter(const GflNmsParams &params, const void *scores, const void *quality,
                                  unsigned *segment_counts, unsigned *bin_counts, GflKey *keys, GflFound &found) {
    static_assert(GFL_BINS == GFL_WARP, "a lane has a bin");
    const int image = blockIdx.y;
    const unsigned thread = threadIdx.x;
    const size_t image_begin = (size_t)image * gfl_num_pairs(params);
    const float cut = gfl_value_cut(params);
    GflSegment segment;
    for (unsigned index = blockIdx.x; gfl_find_segment(params, image, index, &segment); index += gridDim.x) {
        const bool once = segment.end - segment.first <= GFL_FILTER_TILE;
        for (int turn = 0; turn < 2; ++turn) {
            for (size_t tile = segment.first; tile < segment.end; tile += GFL_FILTER_TILE) {
                if (turn == 0 || !once) {
                    const unsigned passed = gfl_passed<lanes>(scores, cut, segment, tile);
                    if (turn == 0 && tile == segment.first && thread < GFL_BINS) found.bins[thread] = 0;
                    if (thread == 0) found.number = 0;
                    __syncthreads();
                    gfl_append<lanes>(passed, found);
                    __syncthreads();
                }
                if (turn == 0)
                    gfl_count(params, scores, quality, tile, found);
                else
                    gfl_place(params, scores, quality, tile, image_begin, found, keys + segment.begin);
                __syncthreads();
            }
            if (turn == 0 && thread < GFL_WARP) {
                const size_t place = (size_t)image * gfl_max_segments(params) + index;
                const unsigned own = found.bins[thread], above = gfl_sum_of_higher_lanes(own, thread);
                found.bins[thread] = above;
                bin_counts[place * GFL_BINS + thread] = above + own;
                if (thread == 0) segment_counts[place] = own + above;
            }
            __syncthreads();
        }
    }
}

/* Collect the keys of the pairs above the threshold, or NaN, segment by segment and there bin by bin, the highest first.
 * scores [N, A, C], quality [N, A] or NULL -> narrowed [N, L] all 0, segment_counts [N, S], bin_counts [N, S, GFL_BINS], keys
 * [N, A * C]. */
extern "C" __global__ void __launch_bounds__(GFL_FILTER_THREADS, GFL_FILTER_BLOCKS)
    gfl_filter_kernel(const __grid_constant__ GflNmsParams params, const void *__restrict__ scores,
                      const void *__restrict__ quality, unsigned *__restrict__ narrowed,
                      unsigned *__restrict__ segment_counts, unsigned *__restrict__ bin_counts,
                      GflKey *__restrict__ keys) {
    __shared__ GflFound found;
    gfl_let_next_begin();
    const unsigned lists = gfl_num_lists(params);
    if (blockIdx.x == 0 && threadIdx.x < lists) narrowed[blockIdx.y * lists + threadIdx.x] = 0;
    if (params.dtype == GFL_FLOAT16)
        gfl_filter<8>(params, scores, quality, segment_counts, bin_counts, keys, found);
    else
        gfl_filter<4>(params, scores, quality, segment_counts, bin_counts, keys, found);
}

#endif
