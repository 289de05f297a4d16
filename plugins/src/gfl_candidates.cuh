/* Filter and gather: from all scores to each list's candidates, its finalists. */
#ifndef GFL_CANDIDATES_CUH
#define GFL_CANDIDATES_CUH

#include "gfl_common.cuh"

#define GFL_RADIX_BITS 11
#define GFL_RADIX_BINS (1 << GFL_RADIX_BITS)
#define GFL_RADIX_FIRST_SHIFT 52 /* bit 63, the score's sign, is 0 in every key */

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

/* The bin of a score in a segment's histogram; never falls as scores rise. Bits of float32 are nearly a logarithm, which
 * spreads scores, and the bins share out those between the threshold and 1; scores below GFL_SPREAD_FROM need no bins. */
__device__ inline unsigned gfl_bin(const GflNmsParams &params, float score) {
    const unsigned low = __float_as_uint(fmaxf(params.score_threshold, GFL_SPREAD_FROM));
    const unsigned range = __float_as_uint(1.0f) - low, bits = __float_as_uint(score);
    if (bits <= low) return 0;
    const float place = __fmul_rn((float)(bits - low), __fdiv_rn((float)GFL_BINS, (float)range + 1.0f));
    return place < GFL_BINS - 1 ? (unsigned)place : GFL_BINS - 1;
}

/* ---- Filter ---- */

/* 16 bytes from `element` on, as floats; elements at or beyond `end` are not touched and are below every cut. */
template <int lanes>
__device__ inline void gfl_load_vector(const void *values, size_t element, size_t end, float (&vector)[lanes]) {
    constexpr int dtype = lanes == 8 ? GFL_FLOAT16 : GFL_FLOAT32;
    if (element + lanes <= end) {
        const uint4 words = ((const uint4 *)values)[element / lanes];
        const unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < lanes; ++i)
            vector[i] = dtype == GFL_FLOAT16 ? gfl_half_to_float((unsigned short)(word[i / 2] >> (16 * (i % 2))))
                                             : __uint_as_float(word[i % 4]);
    } else {
#pragma unroll
        for (int i = 0; i < lanes; ++i)
            vector[i] = element + i < end ? gfl_load(values, element + i, dtype) : -GFL_INFINITY;
    }
}

/* Which of this thread's elements of a tile are above the threshold, or NaN. Bit r * lanes + i: element i of its vector r.
 * Survivors are rare, so that loading them again costs less than to hold all elements. */
template <int lanes>
__device__ inline unsigned gfl_passed(const GflNmsParams &params, const void *scores, const void *quality, float cut,
                                      const GflSegment &segment, size_t tile) {
    unsigned passed = 0;
#pragma unroll
    for (int r = 0; r < GFL_FILTER_TILE / GFL_FILTER_THREADS / lanes; ++r) {
        const size_t element = tile + (size_t)(r * GFL_FILTER_THREADS + threadIdx.x) * lanes;
        float vector[lanes];
        gfl_load_vector<lanes>(scores, element, segment.end, vector);
#pragma unroll
        for (int i = 0; i < lanes; ++i)
            if (!(vector[i] <= cut) && element + i >= segment.begin) passed |= 1u << (r * lanes + i);
        GFL_COUNT(elements_read, element < segment.end ? lanes : 0);
    }
    for (unsigned rest = passed; rest; rest &= rest - 1)
        if (gfl_score(params, scores, quality, gfl_element(tile, __ffs(rest) - 1, lanes)) <= params.score_threshold)
            passed &= ~(rest & (0u - rest));
    return passed;
}

/* Of the whole block, the sum of the threads before this one, and of all; `sums` takes GFL_FILTER_THREADS / GFL_WARP. */
__device__ inline unsigned gfl_sum_before(unsigned own, unsigned *sums, unsigned *all) {
    const unsigned lane = threadIdx.x % GFL_WARP, warp = threadIdx.x / GFL_WARP;
    unsigned sum = own;
#pragma unroll
    for (int step = 1; step < GFL_WARP; step *= 2) {
        const unsigned below = __shfl_up_sync(GFL_ALL_LANES, sum, step);
        if (lane >= (unsigned)step) sum += below;
    }
    if (lane == GFL_WARP - 1) sums[warp] = sum;
    __syncthreads();
    unsigned before = sum - own;
    *all = 0;
#pragma unroll
    for (unsigned i = 0; i < GFL_FILTER_THREADS / GFL_WARP; ++i) {
        if (i < warp) before += sums[i];
        *all += sums[i];
    }
    return before;
}

/* `lanes` elements are 16 bytes. */
template <int lanes>
__device__ inline void gfl_filter(const GflNmsParams &params, const void *scores, const void *quality,
                                  unsigned *segment_counts, unsigned short *histograms, GflKey *keys, unsigned *bins,
                                  unsigned *sums) {
    const int image = blockIdx.y;
    const unsigned thread = threadIdx.x;
    const size_t image_begin = (size_t)image * params.num_anchors * params.num_classes;
    const float cut = gfl_value_cut(params);
    GflSegment segment;
    for (unsigned index = blockIdx.x; gfl_find_segment(params, image, index, &segment); index += gridDim.x) {
        if (thread < GFL_BINS) bins[thread] = 0;
        __syncthreads(); /* the last turn is done with `sums` and `bins` */
        unsigned written = 0;
        for (size_t tile = segment.first; tile < segment.end; tile += GFL_FILTER_TILE) {
            unsigned passed = gfl_passed<lanes>(params, scores, quality, cut, segment, tile);
            if (!__syncthreads_or(passed != 0)) continue; /* also keeps `sums` of one tile from the next */
            unsigned all;
            GflKey *slot = keys + segment.begin + written + gfl_sum_before(__popc(passed), sums, &all);
            for (; passed; passed &= passed - 1) {
                const size_t element = gfl_element(tile, __ffs(passed) - 1, lanes);
                float score = gfl_score(params, scores, quality, element);
                if (score != score) score = 0.0f; /* below every other */
                *slot++ = gfl_key(score, (unsigned)(element - image_begin));
                atomicAdd(&bins[gfl_bin(params, score)], 1u);
                GFL_COUNT(keys_written, 1);
            }
            written += all;
        }
        __syncthreads();
        const size_t place = (size_t)image * gfl_max_segments(params) + index;
        if (thread < GFL_BINS) histograms[place * GFL_BINS + thread] = (unsigned short)bins[thread];
        if (thread == 0) segment_counts[place] = written;
    }
}

/* Collect the keys of the pairs above the threshold, or NaN, segment by segment, and count them by score.
 * scores [N, A, C], quality [N, A] or NULL -> counts [N, L + 1] all 0, segment_counts [N, S], histograms [N, S, GFL_BINS],
 * keys [N, A * C]. */
extern "C" __global__ void __launch_bounds__(GFL_FILTER_THREADS, 4)
    gfl_filter_kernel(const __grid_constant__ GflNmsParams params, const void *__restrict__ scores,
                      const void *__restrict__ quality, unsigned *__restrict__ counts,
                      unsigned *__restrict__ segment_counts, unsigned short *__restrict__ histograms,
                      GflKey *__restrict__ keys) {
    __shared__ unsigned bins[GFL_BINS], sums[GFL_FILTER_THREADS / GFL_WARP];
    const unsigned counters = gfl_num_lists(params) + 1;
    if (blockIdx.x == 0 && threadIdx.x < counters) counts[blockIdx.y * counters + threadIdx.x] = 0;
    if (params.dtype == GFL_FLOAT16)
        gfl_filter<8>(params, scores, quality, segment_counts, histograms, keys, bins, sums);
    else
        gfl_filter<4>(params, scores, quality, segment_counts, histograms, keys, bins, sums);
}

/* ---- Gather ---- */

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

typedef struct {
    unsigned bin, above, inside; /* how many keys lie above the bin, and in it */
} GflCut;

/* A warp: the bin of `first` to `first` + 63 in which the `wanted`-th key from the top lies, where `above` keys lie above these
 * bins. One lane finds it, if any, and writes. */
__device__ inline void gfl_find_bin(const unsigned *bins, unsigned first, unsigned above, unsigned wanted, unsigned lane,
                                    GflCut *cut) {
    const unsigned low = bins[first + 2 * lane], high = bins[first + 2 * lane + 1];
    const unsigned lane_above = above + gfl_sum_of_higher_lanes(low + high, lane);
    if (lane_above < wanted && wanted <= lane_above + high + low) {
        const bool in_high = wanted <= lane_above + high;
        cut->bin = first + 2 * lane + in_high;
        cut->above = in_high ? lane_above : lane_above + high;
        cut->inside = in_high ? high : low;
    }
}

/* The block: `visit(key, valid)` for all keys that gathering left to a list, by whole warps. Past the first level of cache,
 * as other blocks wrote them. */
template <typename Visit>
__device__ inline void gfl_visit_list(const GflNmsParams &params, int image, int list, const unsigned *left_counts,
                                      const GflKey *keys, Visit visit) {
    const unsigned lane = threadIdx.x % GFL_WARP;
    GflSegment segment;
    for (unsigned index = threadIdx.x / GFL_WARP; gfl_find_segment(params, image, index, &segment);
         index += GFL_GATHER_THREADS / GFL_WARP) {
        if (segment.list != list) continue;
        const unsigned left = __ldcg(&left_counts[(size_t)image * gfl_max_segments(params) + index]);
#pragma unroll 4
        for (unsigned base = 0; base < left; base += GFL_WARP) {
            const bool valid = base + lane < left;
            visit(valid ? __ldcg(&keys[segment.begin + base + lane]) : 0, valid);
        }
    }
}

typedef struct {
    unsigned bins[GFL_RADIX_BINS], groups[GFL_WARP];
    GflCut cut;
    unsigned collected;
} GflRadix;

/* The block: a list's finalists where more were left than have room, as scores are many in one bin: radix passes over the
 * bits of the keys, from the top, until those at or above the bin of the last one wanted do fit. Returns their number. */
__device__ inline unsigned gfl_narrow(const GflNmsParams &params, int image, int list, const unsigned *left_counts,
                                      const GflKey *keys, GflKey *finalists, GflRadix &radix) {
    const unsigned thread = threadIdx.x, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    GflKey prefix = 0;
    unsigned above = 0, remaining = 0;
    int shift = GFL_RADIX_FIRST_SHIFT, bits = GFL_RADIX_BITS;
    for (;;) {
        for (unsigned i = thread; i < GFL_RADIX_BINS; i += GFL_GATHER_THREADS) radix.bins[i] = 0;
        __syncthreads();
        gfl_visit_list(params, image, list, left_counts, keys, [&](GflKey key, bool valid) {
            if (valid && key >> (shift + bits) == prefix)
                atomicAdd(&radix.bins[(unsigned)(key >> shift) & ((1u << bits) - 1)], 1u);
        });
        __syncthreads();
        unsigned pair_sum = radix.bins[warp * 64 + lane] + radix.bins[warp * 64 + 32 + lane];
#pragma unroll
        for (int step = GFL_WARP / 2; step; step /= 2) pair_sum += __shfl_xor_sync(GFL_ALL_LANES, pair_sum, step);
        if (lane == 0) radix.groups[warp] = pair_sum;
        __syncthreads();
        if (warp == 0) {
            const unsigned wanted = params.max_candidates - above, group_sum = radix.groups[lane];
            const unsigned group_above = gfl_sum_of_higher_lanes(group_sum, lane);
            const unsigned hit =
                __ballot_sync(GFL_ALL_LANES, group_above < wanted && wanted <= group_above + group_sum);
            const int group = __ffs(hit) - 1;
            gfl_find_bin(radix.bins, 64 * group, __shfl_sync(GFL_ALL_LANES, group_above, group), wanted, lane, &radix.cut);
        }
        __syncthreads();
        above += radix.cut.above;
        remaining = above + radix.cut.inside;
        prefix = prefix << bits | radix.cut.bin;
        if (remaining <= gfl_max_finalists(params)) break; /* at the latest after the last bit, as keys are unique */
        bits = shift < GFL_RADIX_BITS ? shift : GFL_RADIX_BITS;
        shift -= bits;
    }
    if (thread == 0) radix.collected = 0;
    __syncthreads();
    gfl_visit_list(params, image, list, left_counts, keys, [&](GflKey key, bool valid) {
        if (valid && key >= prefix << shift) finalists[atomicAdd(&radix.collected, 1u)] = key;
    });
    __syncthreads(); /* before the next list's turn */
    return remaining;
}

/* The lowest bin of each list whose keys are gathered: that of its last candidate. */
__device__ inline void gfl_find_cuts(const GflNmsParams &params, int image, const unsigned short *histograms,
                                     unsigned (*bins)[GFL_BINS], GflCut *cuts) {
    const unsigned thread = threadIdx.x, bin = thread % GFL_BINS, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    const unsigned lists = gfl_num_lists(params);
    if (thread < GFL_MAX_LEVELS * GFL_BINS) bins[thread / GFL_BINS][bin] = 0;
    if (thread < lists) cuts[thread].bin = 0; /* where fewer are than wanted, all are */
    __syncthreads();
    GflSegment segment;
    unsigned sum = 0, list = 0;
#pragma unroll 4
    for (unsigned index = thread / GFL_BINS; gfl_find_segment(params, image, index, &segment);
         index += GFL_GATHER_THREADS / GFL_BINS) {
        if ((unsigned)segment.list != list) {
            if (sum) atomicAdd(&bins[list][bin], sum);
            sum = 0;
            list = segment.list;
        }
        sum += histograms[((size_t)image * gfl_max_segments(params) + index) * GFL_BINS + bin];
    }
    if (sum) atomicAdd(&bins[list][bin], sum);
    __syncthreads();
    if (warp < lists) gfl_find_bin(bins[warp], 0, 0, params.max_candidates, lane, &cuts[warp]);
    __syncthreads();
}

/* The block: a segment's keys at or above the cut go to its beginning and, while they have room, to the list's finalists. */
__device__ inline void gfl_gather(const GflNmsParams &params, const GflSegment &segment, unsigned count, unsigned cut,
                                  GflKey *keys, unsigned *gathered, GflKey *finalists, unsigned *left) {
    const unsigned thread = threadIdx.x, lane = thread % GFL_WARP, below = (1u << lane) - 1;
    if (thread == 0) *left = 0;
    for (unsigned base = 0; base < count; base += GFL_GATHER_THREADS) { /* a whole warp stays, for its votes */
        const GflKey key = base + thread < count ? keys[segment.begin + base + thread] : 0;
        const bool wins = base + thread < count && gfl_bin(params, gfl_key_score(key)) >= cut;
        __syncthreads(); /* all have read what is overwritten now */
        const unsigned winners = __ballot_sync(GFL_ALL_LANES, wins);
        unsigned place = 0, slot = 0;
        if (lane == 0 && winners) {
            place = atomicAdd(left, (unsigned)__popc(winners));
            slot = atomicAdd(gathered, (unsigned)__popc(winners));
        }
        place = __shfl_sync(GFL_ALL_LANES, place, 0) + __popc(winners & below);
        slot = __shfl_sync(GFL_ALL_LANES, slot, 0) + __popc(winners & below);
        if (wins) keys[segment.begin + place] = key;
        if (wins && slot < gfl_max_finalists(params)) finalists[slot] = key;
    }
    __syncthreads();
}

/* The finalists of every list: max_candidates or some more, or all if there are fewer, in any order.
 * segment_counts [N, S], histograms [N, S, GFL_BINS], keys [N, A * C] -> counts [N, L + 1] finalists of each list and, last,
 * blocks that are done; finalists [N, L, F]; left_counts [N, S] and `keys` for the last block of an image alone. */
extern "C" __global__ void __launch_bounds__(GFL_GATHER_THREADS, 1)
    gfl_gather_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ segment_counts,
                      const unsigned short *__restrict__ histograms, GflKey *keys, unsigned *counts,
                      unsigned *left_counts, GflKey *finalists) {
    __shared__ unsigned bins[GFL_MAX_LEVELS][GFL_BINS];
    __shared__ GflCut cuts[GFL_MAX_LEVELS];
    __shared__ GflRadix radix;
    __shared__ unsigned left, blocks_before;
    const int image = blockIdx.y, lists = gfl_num_lists(params);
    const unsigned room = gfl_max_finalists(params);
    counts += image * (lists + 1);
    finalists += (size_t)image * lists * room;
    gfl_find_cuts(params, image, histograms, bins, cuts);
    GflSegment segment;
    for (unsigned index = blockIdx.x; gfl_find_segment(params, image, index, &segment); index += gridDim.x) {
        const size_t place = (size_t)image * gfl_max_segments(params) + index;
        gfl_gather(params, segment, segment_counts[place], cuts[segment.list].bin, keys, &counts[segment.list],
                   finalists + (size_t)segment.list * room, &left);
        if (threadIdx.x == 0) left_counts[place] = left;
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) blocks_before = atomicAdd(&counts[lists], 1u);
    __syncthreads();
    if (blocks_before + 1 < gridDim.x) return;
    __threadfence();
    for (int list = 0; list < lists; ++list) {
        if (__ldcg(&counts[list]) <= room) continue;
        const unsigned number =
            gfl_narrow(params, image, list, left_counts, keys, finalists + (size_t)list * room, radix);
        if (threadIdx.x == 0) counts[list] = number;
    }
}

#endif
