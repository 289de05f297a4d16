/* The device code: filter, select, merge, NMS, resize. Compiles with nvcc, with NVRTC (no header but gfl_kernels.h) and,
 * under plugins/emulation, with a host compiler.
 *
 * Launch plan
 *
 * Names: N batch, A anchors, C classes, M max_candidates; L lists of candidates per image: num_levels if per_level, else 1.
 * Kernels are extern "C"; `params` is a GflNmsParams by value (96 bytes), the rest are pointers to device memory.
 *
 *   order  kernel             grid (x, y)            block  dynamic shared memory (bytes)
 *   0      memset of `counts` to zero, N * L * 4 bytes
 *   1      gfl_filter_kernel  (ceil(A * C / GFL_FILTER_TILE) + L, N)   GFL_FILTER_THREADS  0
 *   2      gfl_select_kernel  (L, N)                 GFL_SELECT_THREADS  8 * max(GFL_SORT_MIN, power of two >= M)
 *   3      gfl_merge_kernel   (ceil(L * M / GFL_MERGE_THREADS), N)     GFL_MERGE_THREADS   0    only if L > 1
 *   4      gfl_nms_kernel     (N, 1)                 GFL_NMS_THREADS     0
 *
 *   gfl_filter_kernel(params, scores, quality or NULL, counts, keys)     any grid x of 1 or more is right
 *   gfl_select_kernel(params, counts, keys, top)
 *   gfl_merge_kernel(params, counts, top, merged)
 *   gfl_nms_kernel(params, counts, L > 1 ? merged : top, reg_logits or NULL, boxes or NULL,
 *                  num_dets, det_boxes, det_scores, det_classes)
 *   gfl_resize_kernel(GflResizeParams by value, frame, uv or NULL, out)  grid (ceil(out_width / GFL_RESIZE_BLOCK_X),
 *                  ceil(out_height / GFL_RESIZE_BLOCK_Y)), block (GFL_RESIZE_BLOCK_X, GFL_RESIZE_BLOCK_Y), alone
 *
 * Workspace, every part 256 byte aligned, in this order:
 *   counts  unsigned int        [N, L]      pairs above the threshold, or NaN, per list; the only part that must be zeroed
 *   top     unsigned long long  [N, L, M]   keys of a list's best, falling; min(count, M) of them are written
 *   merged  unsigned long long  [N, L * M]  the same of all lists together; no bytes if L is 1
 *   keys    unsigned long long  [N, A * C]  keys in any order; list l begins at its first anchor * C
 *
 * A key is (bits of the float32 score) << 32 | ~(anchor * C + class): scores above a threshold of 0 or more are positive,
 * so that a larger key is a higher score or, at equal scores, a lower pair; a NaN score is 0 there. Keys are unique, so every result is
 * deterministic although the order inside of `keys` is not.
 */
#ifndef GFL_KERNELS_CUH
#define GFL_KERNELS_CUH

#include "gfl_kernels.h"

#define GFL_FILTER_THREADS 256
#define GFL_FILTER_TILE 4096 /* elements that a block reads at a time, 16 per thread */
#define GFL_SELECT_THREADS 1024
#define GFL_SORT_MIN 2048 /* more than most lists need, so that few of them need a radix pass */
#define GFL_MERGE_THREADS 256
#define GFL_NMS_THREADS 512
#define GFL_NMS_CHUNK 256 /* candidates that are decoded and compared at a time */
#define GFL_RESIZE_BLOCK_X 32
#define GFL_RESIZE_BLOCK_Y 8

#define GFL_RADIX_BITS 11
#define GFL_RADIX_BINS (1 << GFL_RADIX_BITS)
#define GFL_RADIX_FIRST_SHIFT 52 /* bit 63, the score's sign, is 0 in every key */
#define GFL_WARP 32
#define GFL_ALL_LANES 0xffffffffu
#define GFL_INFINITY __int_as_float(0x7f800000)

/* Dynamic shared memory, and counters of the work done, which only the emulation keeps. */
#ifndef GFL_EMULATION
#define GFL_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#define GFL_COUNT(what, number)
#endif

typedef unsigned long long GflKey;

/* ---- Lists of candidates ---- */

__device__ inline int gfl_num_lists(const GflNmsParams &params) { return params.per_level ? params.num_levels : 1; }

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

__device__ inline unsigned gfl_list_top(const GflNmsParams &params, const unsigned *counts, int image, int list) {
    const unsigned count = counts[image * gfl_num_lists(params) + list];
    return count < (unsigned)params.max_candidates ? count : (unsigned)params.max_candidates;
}

__device__ inline GflKey gfl_key(float score, unsigned pair) {
    return ((GflKey)__float_as_uint(score) << 32) | (unsigned)~pair;
}

__device__ inline float gfl_key_score(GflKey key) { return __uint_as_float((unsigned)(key >> 32)); }

__device__ inline unsigned gfl_key_pair(GflKey key) { return ~(unsigned)key; }

/* ---- Scores ---- */

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

/* The float32 score whose comparison with the threshold decides; `values` hold scores or logits. */
__device__ inline float gfl_score(const GflNmsParams &params, const void *values, const void *quality, size_t element,
                                  size_t anchor) {
    float score = gfl_load(values, element, params.dtype);
    if (params.score_kind == GFL_LOGITS) score = __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-score)));
    if (quality) score = __fmul_rn(score, gfl_load(quality, anchor, params.dtype));
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

/* ---- Filter ---- */

typedef struct {
    size_t first, begin, end; /* elements of the whole batch: where the tile's loads begin; where its list begins, ends */
    int list;
} GflTile;

/* Tiles begin at whole vectors, lists need not: loads of a list's first tile may begin before the list. */
__device__ inline bool gfl_find_tile(const GflNmsParams &params, int image, size_t tile, int lanes, GflTile *found) {
    size_t begin = (size_t)image * params.num_anchors * params.num_classes;
    for (int list = 0; list < gfl_num_lists(params); ++list) {
        const size_t end = begin + (size_t)gfl_list_anchors(params, list) * params.num_classes;
        const size_t aligned = begin - begin % lanes;
        const size_t tiles = (end - aligned + GFL_FILTER_TILE - 1) / GFL_FILTER_TILE;
        if (tile < tiles) {
            found->first = aligned + tile * GFL_FILTER_TILE;
            found->begin = begin;
            found->end = end;
            found->list = list;
            return true;
        }
        tile -= tiles;
        begin = end;
    }
    return false;
}

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

/* `lanes` elements are 16 bytes. */
template <int lanes>
__device__ inline void gfl_filter(const GflNmsParams &params, const void *scores, const void *quality, unsigned *counts,
                                  GflKey *keys, unsigned *warp_offsets) {
    constexpr int vectors = GFL_FILTER_TILE / GFL_FILTER_THREADS / lanes;
    constexpr int warps = GFL_FILTER_THREADS / GFL_WARP;
    const int image = blockIdx.y;
    const unsigned thread = threadIdx.x, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    const size_t image_begin = (size_t)image * params.num_anchors * params.num_classes;
    const float cut = gfl_value_cut(params);
    GflTile tile;
    for (size_t index = blockIdx.x; gfl_find_tile(params, image, index, lanes, &tile); index += gridDim.x) {
        /* Bit r * lanes + i: element i of this thread's vector r. Survivors are rare, so that loading them again costs
         * less than to hold all elements. */
        unsigned passed = 0;
#pragma unroll
        for (int r = 0; r < vectors; ++r) {
            const size_t element = tile.first + (size_t)(r * GFL_FILTER_THREADS + thread) * lanes;
            float vector[lanes];
            gfl_load_vector<lanes>(scores, element, tile.end, vector);
#pragma unroll
            for (int i = 0; i < lanes; ++i)
                if (!(vector[i] <= cut) && element + i >= tile.begin) /* NaN, too, is to be counted */ passed |= 1u << (r * lanes + i);
            GFL_COUNT(elements_read, element < tile.end ? lanes : 0);
        }
        for (unsigned rest = passed; rest; rest &= rest - 1) {
            const int bit = __ffs(rest) - 1;
            const size_t element =
                tile.first + (size_t)(bit / lanes * GFL_FILTER_THREADS + thread) * lanes + bit % lanes;
            if (gfl_score(params, scores, quality, element, element / params.num_classes) <= params.score_threshold)
                passed &= ~(1u << bit);
        }
        /* Also keeps the shared memory of one turn from the next. */
        if (!__syncthreads_or(passed != 0)) continue;
        const unsigned own = __popc(passed);
        unsigned sum = own;
#pragma unroll
        for (int step = 1; step < GFL_WARP; step *= 2) {
            const unsigned below = __shfl_up_sync(GFL_ALL_LANES, sum, step);
            if (lane >= (unsigned)step) sum += below;
        }
        if (lane == GFL_WARP - 1) warp_offsets[warp] = sum;
        __syncthreads();
        if (thread == 0) {
            unsigned total = 0;
            for (int i = 0; i < warps; ++i) total += warp_offsets[i];
            unsigned offset = atomicAdd(&counts[image * gfl_num_lists(params) + tile.list], total);
            for (int i = 0; i < warps; ++i) {
                const unsigned of_warp = warp_offsets[i];
                warp_offsets[i] = offset;
                offset += of_warp;
            }
        }
        __syncthreads();
        GflKey *slot = keys + tile.begin + warp_offsets[warp] + (sum - own);
        for (; passed; passed &= passed - 1) {
            const int bit = __ffs(passed) - 1;
            const size_t element =
                tile.first + (size_t)(bit / lanes * GFL_FILTER_THREADS + thread) * lanes + bit % lanes;
            const float score = gfl_score(params, scores, quality, element, element / params.num_classes);
            *slot++ = gfl_key(score == score ? score : 0.0f, (unsigned)(element - image_begin)); /* below every score */
            GFL_COUNT(keys_written, 1);
        }
    }
}

/* Collect the keys of the pairs above the threshold, or NaN, list by list.
 * scores [N, A, C], quality [N, A] or NULL -> counts [N, L], keys [N, A * C]. */
extern "C" __global__ void __launch_bounds__(GFL_FILTER_THREADS)
    gfl_filter_kernel(const __grid_constant__ GflNmsParams params, const void *__restrict__ scores,
                      const void *__restrict__ quality, unsigned *__restrict__ counts, GflKey *__restrict__ keys) {
    __shared__ unsigned warp_offsets[GFL_FILTER_THREADS / GFL_WARP];
    if (params.dtype == GFL_FLOAT16)
        gfl_filter<8>(params, scores, quality, counts, keys, warp_offsets);
    else
        gfl_filter<4>(params, scores, quality, counts, keys, warp_offsets);
}

/* ---- Select ---- */

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

/* Warp 0: the bin in which the `wanted`-th key from the top lies, how many keys lie above it, and how many in it. */
__device__ inline void gfl_find_bin(const unsigned *histogram, const unsigned *groups, unsigned wanted, unsigned lane,
                                    unsigned *bin, unsigned *above, unsigned *inside) {
    const unsigned group_sum = groups[lane];
    const unsigned group_above = gfl_sum_of_higher_lanes(group_sum, lane);
    const unsigned hit = __ballot_sync(GFL_ALL_LANES, group_above < wanted && wanted <= group_above + group_sum);
    const int group = __ffs(hit) - 1;
    const unsigned base = __shfl_sync(GFL_ALL_LANES, group_above, group);
    /* 64 bins of the group, two per lane */
    const unsigned low = histogram[group * 64 + 2 * lane], high = histogram[group * 64 + 2 * lane + 1];
    const unsigned lane_above = base + gfl_sum_of_higher_lanes(low + high, lane);
    if (lane_above < wanted && wanted <= lane_above + high + low) {
        const bool in_high = wanted <= lane_above + high;
        *bin = group * 64 + 2 * lane + in_high;
        *above = in_high ? lane_above : lane_above + high;
        *inside = in_high ? high : low;
    }
}

/* Sort `size` keys, a power of two of 64 or more, in falling order: bitonic. Up to a distance of 32, a warp's 32 pairs lie
 * in 64 keys of its own, so that only longer steps need the whole block. Begins and ends with a barrier. */
__device__ inline void gfl_sort(GflKey *keys, unsigned size) {
    unsigned previous = size;
    for (unsigned width = 2; width <= size; width *= 2) {
        for (unsigned distance = width / 2; distance; distance /= 2) {
            if (distance > GFL_WARP || previous > GFL_WARP)
                __syncthreads();
            else
                __syncwarp();
            previous = distance;
            for (unsigned pair = threadIdx.x; pair < size / 2; pair += GFL_SELECT_THREADS) {
                const unsigned low = 2 * pair - (pair & (distance - 1)), high = low + distance;
                const GflKey a = keys[low], b = keys[high];
                if ((a < b) == ((low & width) == 0)) {
                    keys[low] = b;
                    keys[high] = a;
                }
                GFL_COUNT(sort_comparisons, 1);
            }
        }
    }
    __syncthreads();
}

/* The best max_candidates of every list, sorted. counts [N, L], keys [N, A * C] -> top [N, L, M].
 * Lists that do not fit into the shared memory are cut by radix passes over the key's bits, from the top, until what lies at
 * or above the bin that holds the last key wanted does fit; sorting that gives the exact best. */
extern "C" __global__ void __launch_bounds__(GFL_SELECT_THREADS)
    gfl_select_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ counts,
                      const GflKey *__restrict__ keys, GflKey *__restrict__ top) {
    GFL_DYNAMIC_SHARED(GflKey, sorted);
    __shared__ unsigned histogram[GFL_RADIX_BINS];
    __shared__ unsigned groups[GFL_WARP];
    __shared__ unsigned found_bin, found_above, found_inside, collected;
    const int list = blockIdx.x, image = blockIdx.y;
    const unsigned thread = threadIdx.x, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    const unsigned count = counts[image * gfl_num_lists(params) + list];
    const unsigned wanted = gfl_list_top(params, counts, image, list);
    if (count == 0) return;
    size_t first_anchor = (size_t)image * params.num_anchors;
    for (int i = 0; i < list; ++i) first_anchor += gfl_list_anchors(params, i);
    const GflKey *list_keys = keys + first_anchor * params.num_classes;
    unsigned capacity = GFL_SORT_MIN;
    while (capacity < (unsigned)params.max_candidates) capacity *= 2;

    GflKey lowest = 0; /* every key from here on will be sorted */
    unsigned remaining = count;
    if (count > capacity) {
        GflKey prefix = 0;
        unsigned above = 0;
        int shift = GFL_RADIX_FIRST_SHIFT, bits = GFL_RADIX_BITS;
        for (;;) {
            for (unsigned i = thread; i < GFL_RADIX_BINS; i += GFL_SELECT_THREADS) histogram[i] = 0;
            __syncthreads();
#pragma unroll 4
            for (unsigned i = thread; i < count; i += GFL_SELECT_THREADS) {
                const GflKey key = list_keys[i];
                if (key >> (shift + bits) == prefix)
                    atomicAdd(&histogram[(unsigned)(key >> shift) & ((1u << bits) - 1)], 1u);
                GFL_COUNT(radix_reads, 1);
            }
            __syncthreads();
            unsigned pair_sum = histogram[warp * 64 + lane] + histogram[warp * 64 + 32 + lane];
#pragma unroll
            for (int step = GFL_WARP / 2; step; step /= 2)
                pair_sum += __shfl_xor_sync(GFL_ALL_LANES, pair_sum, step);
            if (lane == 0) groups[warp] = pair_sum;
            __syncthreads();
            if (warp == 0)
                gfl_find_bin(histogram, groups, wanted - above, lane, &found_bin, &found_above, &found_inside);
            __syncthreads();
            above += found_above;
            remaining = above + found_inside;
            prefix = prefix << bits | found_bin;
            lowest = prefix << shift;
            if (remaining <= capacity) break; /* at the latest after the last bit, as keys are unique */
            bits = shift < GFL_RADIX_BITS ? shift : GFL_RADIX_BITS;
            shift -= bits;
        }
    }

    unsigned size = 2 * GFL_WARP;
    while (size < remaining) size *= 2;
    if (thread == 0) collected = 0;
    for (unsigned i = remaining + thread; i < size; i += GFL_SELECT_THREADS) sorted[i] = 0; /* below every real key */
    __syncthreads();
    for (unsigned base = 0; base < count; base += GFL_SELECT_THREADS) { /* a whole warp stays, for its votes */
        const GflKey key = base + thread < count ? list_keys[base + thread] : 0;
        const bool wins = base + thread < count && key >= lowest;
        const unsigned winners = __ballot_sync(GFL_ALL_LANES, wins);
        unsigned offset = 0;
        if (lane == 0 && winners) offset = atomicAdd(&collected, (unsigned)__popc(winners));
        offset = __shfl_sync(GFL_ALL_LANES, offset, 0);
        if (wins) sorted[offset + __popc(winners & ((1u << lane) - 1))] = key;
    }
    gfl_sort(sorted, size);
    GflKey *out = top + ((size_t)image * gfl_num_lists(params) + list) * params.max_candidates;
    for (unsigned i = thread; i < wanted; i += GFL_SELECT_THREADS) out[i] = sorted[i];
    GFL_COUNT(keys_sorted, thread == 0 ? remaining : 0);
}

/* ---- Merge ---- */

/* One order of the sorted lists of an image: a key's rank is its place in its own list plus, of every other list, the number
 * of keys above it. counts [N, L], top [N, L, M] -> merged [N, L * M]. */
extern "C" __global__ void __launch_bounds__(GFL_MERGE_THREADS)
    gfl_merge_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ counts,
                     const GflKey *__restrict__ top, GflKey *__restrict__ merged) {
    const int lists = gfl_num_lists(params), image = blockIdx.y;
    const unsigned slot = blockIdx.x * GFL_MERGE_THREADS + threadIdx.x;
    const int own = slot / params.max_candidates;
    const unsigned place = slot % params.max_candidates;
    if (own >= lists || place >= gfl_list_top(params, counts, image, own)) return;
    const size_t base = (size_t)image * lists * params.max_candidates;
    const GflKey key = top[base + slot];
    unsigned rank = place;
    for (int list = 0; list < lists; ++list) {
        if (list == own) continue;
        const GflKey *others = top + base + (size_t)list * params.max_candidates;
        unsigned low = 0, high = gfl_list_top(params, counts, image, list);
        while (low < high) {
            const unsigned middle = (low + high) / 2;
            if (others[middle] > key)
                low = middle + 1;
            else
                high = middle;
            GFL_COUNT(merge_comparisons, 1);
        }
        rank += low;
    }
    merged[base + rank] = key;
}

/* ---- NMS ---- */

/* As np.maximum and np.minimum: NaN if either is, unlike fmaxf and fminf. */
__device__ inline float gfl_max(float a, float b) { return a > b || a != a ? a : b; }
__device__ inline float gfl_min(float a, float b) { return a < b || a != a ? a : b; }

__device__ inline float gfl_area(const float4 &box) {
    return __fmul_rn(__fsub_rn(box.z, box.x), __fsub_rn(box.w, box.y));
}

/* Can this be a detection? As sound() of gfl_edge/ops/boxes.py. Scores above a threshold are above 0; that of NaN is 0. */
__device__ inline bool gfl_sound(const float4 &box, float score) {
    const float limit = GFL_MAX_COORDINATE; /* NaN is not at or below it */
    return fabsf(box.x) <= limit && fabsf(box.y) <= limit && fabsf(box.z) <= limit && fabsf(box.w) <= limit &&
           box.x <= box.z && box.y <= box.w && score > 0.0f && score <= 1.0f;
}

/* Is the IoU of two boxes strictly above the limit, 0 or more? Rounded like NumPy's float32, step by step: a compiler that
 * fused a product and a sum would decide otherwise at the threshold. */
__device__ inline bool gfl_overlaps(const float4 &a, const float4 &b, float limit) {
    const float width = gfl_max(__fsub_rn(gfl_min(a.z, b.z), gfl_max(a.x, b.x)), 0.0f);
    const float height = gfl_max(__fsub_rn(gfl_min(a.w, b.w), gfl_max(a.y, b.y)), 0.0f);
    const float intersection = __fmul_rn(width, height);
    GFL_COUNT(ious, 1);
    if (!(intersection > 0.0f)) return false; /* most pairs; then the IoU is 0 or NaN */
    const float both = __fsub_rn(__fadd_rn(gfl_area(a), gfl_area(b)), intersection);
    return __fdiv_rn(intersection, gfl_max(both, 1e-9f)) > limit;
}

/* One edge (0 left, 1 top, 2 right, 3 bottom) of an anchor's box in pixels: the expectation of its distribution, in strides,
 * from the cell's point, clipped to the input. NaN stays. */
__device__ inline float gfl_decode_edge(const GflNmsParams &params, const void *reg_logits, int image, int anchor,
                                        int edge) {
    const int bins = params.reg_max + 1;
    const size_t first = (((size_t)image * params.num_anchors + anchor) * 4 + edge) * bins;
    float largest = -GFL_INFINITY;
    for (int i = 0; i < bins; ++i) largest = fmaxf(largest, gfl_load(reg_logits, first + i, params.dtype));
    float weights = 0.0f, moment = 0.0f;
    for (int i = 0; i < bins; ++i) {
        const float weight = expf(gfl_load(reg_logits, first + i, params.dtype) - largest);
        weights += weight;
        moment += weight * (float)i;
    }
    int level = 0, cell = anchor;
    while (level < params.num_levels - 1 && cell >= gfl_level_anchors(params, level))
        cell -= gfl_level_anchors(params, level++);
    const float stride = (float)params.strides[level];
    const int columns = gfl_level_columns(params, level);
    const int place = edge % 2 ? cell / columns : cell % columns;
    const float center = __fmul_rn(__fadd_rn((float)place, params.point_offset), stride);
    const float distance = __fmul_rn(__fdiv_rn(moment, weights), stride);
    const float corner = edge < 2 ? __fsub_rn(center, distance) : __fadd_rn(center, distance);
    const float limit = (float)(edge % 2 ? params.input_height : params.input_width);
    return gfl_min(gfl_max(corner, 0.0f), limit);
}

/* Greedy NMS of an image by one block, chunk by chunk of falling score, until max_detections are kept.
 * sorted [N, L * M] keys, reg_logits or boxes -> the outputs of GflNmsOutputs, padded. What is kept so far is read back from
 * det_boxes and det_classes, so that max_detections is not bound by the shared memory. */
extern "C" __global__ void __launch_bounds__(GFL_NMS_THREADS)
    gfl_nms_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ counts,
                   const GflKey *__restrict__ sorted, const void *__restrict__ reg_logits,
                   const float *__restrict__ boxes, int *num_dets, float *det_boxes, float *det_scores,
                   int *det_classes) {
    constexpr int words = GFL_NMS_CHUNK / GFL_WARP;
    constexpr int warps = GFL_NMS_THREADS / GFL_WARP;
    __shared__ float4 chunk_boxes[GFL_NMS_CHUNK];
    __shared__ float chunk_scores[GFL_NMS_CHUNK];
    __shared__ int chunk_anchors[GFL_NMS_CHUNK];
    __shared__ int chunk_classes[GFL_NMS_CHUNK];
    __shared__ unsigned suppressed[GFL_NMS_CHUNK][words]; /* row i, bit j: i suppresses j, if i is kept */
    __shared__ unsigned alive[words];
    __shared__ unsigned char order[GFL_NMS_CHUNK]; /* the chunk's kept ones */
    __shared__ int kept_after;
    __shared__ unsigned invalid;
    const int image = blockIdx.x;
    const int thread = threadIdx.x, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    const int lists = gfl_num_lists(params), wanted = params.max_detections;
    sorted += (size_t)image * lists * params.max_candidates;
    float4 *kept_boxes = (float4 *)det_boxes + (size_t)image * wanted;
    float *kept_scores = det_scores + (size_t)image * wanted;
    int *kept_classes = det_classes + (size_t)image * wanted;
    int total = 0;
    for (int list = 0; list < lists; ++list) total += gfl_list_top(params, counts, image, list);

    int kept = 0;
    if (thread == 0) invalid = 0; /* seen by all after the barriers of a turn */
    __syncthreads();
    for (int base = 0; base < total && kept < wanted; base += GFL_NMS_CHUNK) {
        const int size = total - base < GFL_NMS_CHUNK ? total - base : GFL_NMS_CHUNK;
        if (thread < size) {
            const GflKey key = sorted[base + thread];
            const unsigned pair = gfl_key_pair(key);
            chunk_scores[thread] = gfl_key_score(key);
            chunk_anchors[thread] = pair / params.num_classes;
            chunk_classes[thread] = pair % params.num_classes;
        }
        if (thread < words) {
            const int bits = size - thread * GFL_WARP;
            alive[thread] = bits >= GFL_WARP ? GFL_ALL_LANES : bits > 0 ? (1u << bits) - 1 : 0;
        }
        __syncthreads();
        for (int item = thread; item < 4 * size; item += GFL_NMS_THREADS) {
            const int anchor = chunk_anchors[item / 4];
            ((float *)chunk_boxes)[item] =
                boxes ? boxes[((size_t)image * params.num_anchors + anchor) * 4 + item % 4]
                      : gfl_decode_edge(params, reg_logits, image, anchor, item % 4);
            GFL_COUNT(edges_decoded, 1);
        }
        __syncthreads();

        if (thread < GFL_NMS_CHUNK) { /* whole warps */
            const bool bad = thread < size && !gfl_sound(chunk_boxes[thread], chunk_scores[thread]);
            const unsigned bads = __ballot_sync(GFL_ALL_LANES, bad);
            if (lane == 0 && bads) {
                atomicAnd(&alive[warp], ~bads);
                atomicAdd(&invalid, (unsigned)__popc(bads));
            }
        }

        { /* against the kept of earlier chunks: a candidate per lane, the kept shared out among the warps */
            const int candidate = thread % GFL_NMS_CHUNK;
            bool hit = false;
            if (candidate < size) {
                const float4 box = chunk_boxes[candidate];
                const int label = chunk_classes[candidate];
                for (int i = thread / GFL_NMS_CHUNK; i < kept && !hit; i += GFL_NMS_THREADS / GFL_NMS_CHUNK)
                    hit = (params.class_agnostic || kept_classes[i] == label) &&
                          gfl_overlaps(kept_boxes[i], box, params.iou_threshold);
            }
            const unsigned hits = __ballot_sync(GFL_ALL_LANES, hit);
            if (lane == 0 && hits) atomicAnd(&alive[candidate / GFL_WARP], ~hits);
        }
        __syncthreads();

        for (int row = warp; row < size; row += warps) { /* inside of the chunk: a row per warp, a candidate per lane */
            if (!(alive[row / GFL_WARP] >> (row % GFL_WARP) & 1)) continue;
            const float4 box = chunk_boxes[row];
            const int label = chunk_classes[row];
            for (int word = row / GFL_WARP; word < words; ++word) {
                const int other = word * GFL_WARP + lane;
                const bool hit = other > row && (alive[word] >> lane & 1) &&
                                 (params.class_agnostic || chunk_classes[other] == label) &&
                                 gfl_overlaps(box, chunk_boxes[other], params.iou_threshold);
                const unsigned hits = __ballot_sync(GFL_ALL_LANES, hit);
                if (lane == 0) suppressed[row][word] = hits;
            }
        }
        __syncthreads();

        if (warp == 0) { /* greedy: the first that is left is kept and takes its row away; lane w has word w */
            unsigned left = lane < words ? alive[lane] : 0;
            int now = kept;
            while (now < wanted) {
                const unsigned any = __ballot_sync(GFL_ALL_LANES, left != 0);
                if (!any) break;
                const int word = __ffs(any) - 1;
                const int bit = __ffs(__shfl_sync(GFL_ALL_LANES, left, word)) - 1;
                const int row = word * GFL_WARP + bit;
                if (lane == word) left &= ~(1u << bit);
                if (lane >= word && lane < words) left &= ~suppressed[row][lane];
                if (lane == 0) order[now - kept] = (unsigned char)row;
                ++now;
            }
            if (lane == 0) kept_after = now;
        }
        __syncthreads();

        const int now = kept_after;
        for (int i = kept + thread; i < now; i += GFL_NMS_THREADS) {
            const int candidate = order[i - kept];
            kept_boxes[i] = chunk_boxes[candidate];
            kept_scores[i] = chunk_scores[candidate];
            kept_classes[i] = chunk_classes[candidate];
        }
        kept = now;
        __syncthreads(); /* the kept are read and the chunk is overwritten next */
    }

    const int left_out = (int)invalid;
    for (int i = kept + thread; i < wanted; i += GFL_NMS_THREADS) {
        kept_boxes[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        kept_scores[i] = 0.0f;
        kept_classes[i] = i - kept < left_out ? GFL_INVALID_CLASS : -1;
    }
    if (thread == 0) num_dets[image] = kept;
}

/* ---- Resize ---- */

__device__ inline int gfl_clamp(int value, int highest) { return value < 0 ? 0 : value > highest ? highest : value; }

/* 2^20ths of a gray level -> gray level */
__device__ inline int gfl_gray(int value) { return gfl_clamp((value + (1 << 19)) >> 20, 255); }

/* BT.601, limited range: Y 16..235, U and V 16..240 around 128. */
__device__ inline void gfl_yuv_to_bgr(int y, int u, int v, int (&bgr)[3]) {
    const int luma = (y > 16 ? y - 16 : 0) * 1220542; /* 1.164 * 2^20 */
    u -= 128;
    v -= 128;
    bgr[0] = gfl_gray(luma + 2116026 * u);              /* 2.018 */
    bgr[1] = gfl_gray(luma - 409993 * u - 852492 * v); /* 0.391, 0.813 */
    bgr[2] = gfl_gray(luma + 1673527 * v);              /* 1.596 */
}

__device__ inline void gfl_frame_pixel(const GflResizeParams &params, const uint8_t *frame, const uint8_t *uv, int x,
                                       int y, int (&bgr)[3]) {
    const bool outside = x < 0 || y < 0 || x >= params.frame_width || y >= params.frame_height;
    if (outside && params.black_border) {
        bgr[0] = bgr[1] = bgr[2] = 0;
        return;
    }
    x = gfl_clamp(x, params.frame_width - 1);
    y = gfl_clamp(y, params.frame_height - 1);
    if (params.format == GFL_NV12) {
        const uint8_t *chroma = uv + (size_t)(y / 2) * params.uv_pitch + x / 2 * 2;
        gfl_yuv_to_bgr(frame[(size_t)y * params.pitch + x], chroma[0], chroma[1], bgr);
        return;
    }
    const uint8_t *pixel = frame + (size_t)y * params.pitch + 3 * (size_t)x;
    const bool rgb = params.format == GFL_RGB;
    bgr[0] = pixel[rgb ? 2 : 0];
    bgr[1] = pixel[1];
    bgr[2] = pixel[rgb ? 0 : 2];
}

/* The frame coordinate of a pixel: whole part and fraction. With a black border as cv2.warpAffine has it, whose coordinates
 * are 1/1024ths rounded to 1/32 pixel, which matters by up to 8 gray levels; double, as 1/1024 of a pixel at 4096 is at the
 * end of what float32 holds. Far outside, where nothing is to be seen, is as good as just outside. */
__device__ inline int gfl_coordinate(const GflResizeParams &params, int place, float step, float start, int frame_size,
                                     float *fraction) {
    if (params.black_border) {
        const double fine = rint((double)place * step * 1024.0) + rint(start * 1024.0);
        const double limited = fmin(fmax(fine, -2048.0), 1024.0 * (frame_size + 2));
        const int fixed = ((int)limited + 16) >> 5;
        *fraction = (float)(fixed & 31) / 32.0f;
        return fixed >> 5;
    }
    const float coordinate = fminf(fmaxf((float)place * step + start, -2.0f), (float)frame_size + 2.0f);
    const float whole = floorf(coordinate);
    *fraction = coordinate - whole;
    return (int)whole;
}

/* One thread per pixel of `out`, uint8 [out_height, out_width, 3]. */
extern "C" __global__ void __launch_bounds__(GFL_RESIZE_BLOCK_X *GFL_RESIZE_BLOCK_Y)
    gfl_resize_kernel(const __grid_constant__ GflResizeParams params, const uint8_t *__restrict__ frame,
                      const uint8_t *__restrict__ uv, uint8_t *__restrict__ out) {
    const int x = blockIdx.x * GFL_RESIZE_BLOCK_X + threadIdx.x;
    const int y = blockIdx.y * GFL_RESIZE_BLOCK_Y + threadIdx.y;
    if (x >= params.out_width || y >= params.out_height) return;
    uint8_t *pixel = out + ((size_t)y * params.out_width + x) * 3;
    if (x >= params.content_width || y >= params.content_height) {
        for (int c = 0; c < 3; ++c) pixel[c] = params.padding_bgr[c];
        return;
    }
    float along, down;
    const int left = gfl_coordinate(params, x, params.step_x, params.start_x, params.frame_width, &along);
    const int top = gfl_coordinate(params, y, params.step_y, params.start_y, params.frame_height, &down);
    int corner[4][3];
    for (int i = 0; i < 4; ++i) gfl_frame_pixel(params, frame, uv, left + i % 2, top + i / 2, corner[i]);
    for (int c = 0; c < 3; ++c) {
        const float upper = corner[0][c] + along * (corner[1][c] - corner[0][c]);
        const float lower = corner[2][c] + along * (corner[3][c] - corner[2][c]);
        pixel[c] = (uint8_t)(upper + down * (lower - upper) + 0.5f);
    }
}

#endif
