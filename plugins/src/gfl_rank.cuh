/* Rank: from the keys of all segments to the candidates with their boxes, in order. */
#ifndef GFL_RANK_CUH
#define GFL_RANK_CUH

#include "gfl_boxes.cuh"
#include "gfl_candidates.cuh"

#define GFL_RADIX_BITS 10
#define GFL_RADIX_BINS (1 << GFL_RADIX_BITS)
#define GFL_RADIX_FIRST_SHIFT 53 /* bit 63, the score's sign, is 0 in every key */
#define GFL_RANK_WARPS (GFL_RANK_THREADS / GFL_WARP)
#define GFL_EDGE_LANES (GFL_WARP / 4)
#define GFL_LANE_BINS ((GFL_MAX_BINS + GFL_EDGE_LANES - 1) / GFL_EDGE_LANES)

/* ---- Finalists ---- */

/* The keys that may be candidates: the first ones of each segment, as if they lay behind each other. */
typedef struct {
    unsigned begin[GFL_RANK_THREADS]; /* of a segment's first one among those of all lists */
    size_t at[GFL_RANK_THREADS];      /* finalist i of the segment's is keys[at + i] */
    unsigned list_begin[GFL_MAX_LEVELS + 1];
    unsigned first_segment[GFL_MAX_LEVELS], end_segment[GFL_MAX_LEVELS]; /* of a list */
    unsigned sums[GFL_RANK_WARPS];
    unsigned bins[GFL_BINS];
    unsigned narrowed;
} GflFinalists;

/* The block: lay the finalists out, `number` of this thread's segment, which lie from keys[from] on. */
__device__ inline void gfl_lay_out(const GflNmsParams &params, const GflSegment &segment, unsigned number, size_t from,
                                   GflFinalists &all) {
    const unsigned thread = threadIdx.x, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    unsigned sum = number;
#pragma unroll
    for (int step = 1; step < GFL_WARP; step *= 2) {
        const unsigned below = __shfl_up_sync(GFL_ALL_LANES, sum, step);
        if (lane >= (unsigned)step) sum += below;
    }
    if (lane == GFL_WARP - 1) all.sums[warp] = sum;
    __syncthreads();
    unsigned before = sum - number;
#pragma unroll
    for (unsigned i = 0; i < GFL_RANK_WARPS; ++i)
        if (i < warp) before += all.sums[i];
    all.begin[thread] = before;
    all.at[thread] = from - before;
    if (segment.list >= 0 && segment.index == 0) {
        all.list_begin[segment.list] = before;
        all.first_segment[segment.list] = thread;
        all.end_segment[segment.list] = thread + segment.segments;
    }
    if (thread == GFL_RANK_THREADS - 1) all.list_begin[gfl_num_lists(params)] = before + number;
    __syncthreads();
}

__device__ inline unsigned gfl_list_size(const GflFinalists &all, int list) {
    return all.list_begin[list + 1] - all.list_begin[list];
}

/* Finalist `index`; past the first level of cache, as another block may have written it. */
__device__ inline GflKey gfl_finalist(const GflFinalists &all, const GflKey *keys, unsigned index) {
    unsigned segment = 0;
#pragma unroll
    for (unsigned step = GFL_RANK_THREADS / 2; step; step /= 2)
        if (all.begin[segment + step] <= index) segment += step;
    return __ldcg(&keys[all.at[segment] + index]);
}

/* The block: the lowest bin of a list whose keys are finalists, that of its last candidate. */
__device__ inline unsigned gfl_find_cut(const GflNmsParams &params, int list, const unsigned *bin_counts,
                                        GflFinalists &all) {
    const unsigned thread = threadIdx.x, bin = thread % GFL_BINS;
    if (thread < GFL_BINS) all.bins[thread] = 0;
    __syncthreads();
    unsigned sum = 0;
    const unsigned end = all.end_segment[list];
#pragma unroll 8
    for (unsigned index = all.first_segment[list] + thread / GFL_BINS; index < end; index += GFL_RANK_THREADS / GFL_BINS)
        sum += bin_counts[index * GFL_BINS + bin];
    if (sum) atomicAdd(&all.bins[bin], sum);
    __syncthreads();
    return 31 - __clz(__ballot_sync(GFL_ALL_LANES, all.bins[bin] >= (unsigned)params.max_candidates));
}

/* ---- Lists with too many scores in one bin ---- */

typedef struct {
    unsigned bins[GFL_RADIX_BINS], groups[GFL_RANK_WARPS];
    unsigned bin, above, inside; /* where the last candidate lies, and how many keys lie above that bin, and in it */
    unsigned collected;
} GflRadix;

/* The block: `visit(key, valid)` for all finalists of a list, by whole warps. */
template <typename Visit>
__device__ inline void gfl_visit_list(const GflFinalists &all, int list, const GflKey *keys, Visit visit) {
    const unsigned lane = threadIdx.x % GFL_WARP;
    for (unsigned index = all.first_segment[list] + threadIdx.x / GFL_WARP; index < all.end_segment[list];
         index += GFL_RANK_WARPS) {
        const unsigned end = all.begin[index + 1];
#pragma unroll 4
        for (unsigned base = all.begin[index]; base < end; base += GFL_WARP) {
            const bool valid = base + lane < end;
            visit(valid ? __ldcg(&keys[all.at[index] + base + lane]) : 0, valid);
        }
    }
}

/* The block: which bin the `wanted`-th key from the top lies in. */
__device__ inline void gfl_find_radix_bin(unsigned wanted, GflRadix &radix) {
    constexpr unsigned share = GFL_RADIX_BINS / GFL_RANK_WARPS;
    static_assert(share == 2 * GFL_WARP, "a lane has two bins");
    const unsigned lane = threadIdx.x % GFL_WARP, warp = threadIdx.x / GFL_WARP;
    const unsigned low = radix.bins[warp * share + 2 * lane], high = radix.bins[warp * share + 2 * lane + 1];
    const unsigned higher = gfl_sum_of_higher_lanes(low + high, lane);
    if (lane == 0) radix.groups[warp] = higher + low + high;
    __syncthreads();
    unsigned above = higher;
    for (unsigned i = warp + 1; i < GFL_RANK_WARPS; ++i) above += radix.groups[i];
    if (above < wanted && wanted <= above + high + low) {
        const bool in_high = wanted <= above + high;
        radix.bin = warp * share + 2 * lane + in_high;
        radix.above = in_high ? above : above + high;
        radix.inside = in_high ? high : low;
    }
    __syncthreads();
}

/* The block: a list's finalists where they are more than have room, as scores are many in one bin: radix passes over the
 * bits of the keys, from the top, until those at or above the bin of the last one wanted do fit. Returns their number. */
__device__ inline unsigned gfl_narrow(const GflNmsParams &params, const GflFinalists &all, int list, const GflKey *keys,
                                      GflKey *finalists, GflRadix &radix) {
    const unsigned thread = threadIdx.x;
    GflKey prefix = 0;
    unsigned above = 0, remaining = 0;
    int shift = GFL_RADIX_FIRST_SHIFT, bits = GFL_RADIX_BITS;
    for (;;) {
        for (unsigned i = thread; i < GFL_RADIX_BINS; i += GFL_RANK_THREADS) radix.bins[i] = 0;
        __syncthreads();
        gfl_visit_list(all, list, keys, [&](GflKey key, bool valid) {
            if (valid && key >> (shift + bits) == prefix)
                atomicAdd(&radix.bins[(unsigned)(key >> shift) & ((1u << bits) - 1)], 1u);
        });
        __syncthreads();
        gfl_find_radix_bin(params.max_candidates - above, radix);
        above += radix.above;
        remaining = above + radix.inside;
        prefix = prefix << bits | radix.bin;
        if (remaining <= gfl_max_finalists(params)) break; /* at the latest after the last bit, as keys are unique */
        bits = shift < GFL_RADIX_BITS ? shift : GFL_RADIX_BITS;
        shift -= bits;
    }
    if (thread == 0) radix.collected = 0;
    __syncthreads();
    gfl_visit_list(all, list, keys, [&](GflKey key, bool valid) {
        if (valid && key >= prefix << shift) finalists[atomicAdd(&radix.collected, 1u)] = key;
    });
    __syncthreads();
    return remaining;
}

/* The block: the first block of an image narrows a list down, and the others wait for it, which began before them. Returns how
 * many finalists lie at `finalists` then. */
__device__ inline unsigned gfl_narrowed(const GflNmsParams &params, GflFinalists &all, int list, const GflKey *keys,
                                        GflKey *finalists, GflRadix &radix, unsigned *narrowed) {
    if (blockIdx.x == 0) {
        const unsigned number = gfl_narrow(params, all, list, keys, finalists, radix);
        if (threadIdx.x == 0) {
            __threadfence();
            atomicExch(narrowed, number);
            all.narrowed = number;
        }
    } else if (threadIdx.x == 0) {
        unsigned number;
        do number = atomicAdd(narrowed, 0u);
        while (!number);
        __threadfence();
        all.narrowed = number;
    }
    __syncthreads();
    return all.narrowed;
}

/* ---- Decode ---- */

/* A warp: the part of an anchor's box that a lane loads, early, as it takes long: of given boxes lanes 0 to 3 an edge; else
 * every 8 lanes the distribution of an edge (0 left, 1 top, 2 right, 3 bottom), a lane each 8th bin. */
__device__ inline void gfl_load_box(const GflNmsParams &params, const void *reg_logits, const float *boxes, int image,
                                    unsigned anchor, float (&part)[GFL_LANE_BINS]) {
    const unsigned lane = threadIdx.x % GFL_WARP, bins = params.reg_max + 1;
    const size_t row = (size_t)image * params.num_anchors + anchor;
    if (boxes) {
        part[0] = boxes[row * 4 + lane % 4];
        return;
    }
    const size_t first = (row * 4 + lane / GFL_EDGE_LANES) * bins;
#pragma unroll
    for (int i = 0; i < GFL_LANE_BINS; ++i) {
        const unsigned bin = lane % GFL_EDGE_LANES + i * GFL_EDGE_LANES;
        part[i] = bin < bins ? gfl_load(reg_logits, first + bin, params.dtype) : -GFL_INFINITY;
    }
}

/* A warp: the edges of a box in lanes 0 to 3, in pixels: the expectation of each distribution, in strides, from the cell's
 * point, clipped to the input. NaN stays. Sums go from the first bin to the last, by one lane; `weights` takes those of all. */
__device__ inline float gfl_decode_edge(const GflNmsParams &params, unsigned anchor, const float (&part)[GFL_LANE_BINS],
                                        float (&weights)[4][GFL_MAX_BINS]) {
    const unsigned lane = threadIdx.x % GFL_WARP, edge = lane % 4;
    const int bins = params.reg_max + 1;
    float largest = part[0];
#pragma unroll
    for (int i = 1; i < GFL_LANE_BINS; ++i) largest = fmaxf(largest, part[i]);
#pragma unroll
    for (int step = GFL_EDGE_LANES / 2; step; step /= 2)
        largest = fmaxf(largest, __uint_as_float(__shfl_xor_sync(GFL_ALL_LANES, __float_as_uint(largest), step)));
#pragma unroll
    for (int i = 0; i < GFL_LANE_BINS; ++i) {
        const int bin = lane % GFL_EDGE_LANES + i * GFL_EDGE_LANES;
        if (bin < bins) weights[lane / GFL_EDGE_LANES][bin] = expf(part[i] - largest);
    }
    __syncwarp();
    float sum = 0.0f, moment = 0.0f;
#pragma unroll 4
    for (int i = 0; i < bins; ++i) {
        const float weight = weights[edge][i];
        sum += weight;
        moment += weight * (float)i;
    }
    int level = 0, cell = anchor;
    while (level < params.num_levels - 1 && cell >= gfl_level_anchors(params, level))
        cell -= gfl_level_anchors(params, level++);
    const float stride = (float)params.strides[level];
    const int columns = gfl_level_columns(params, level);
    const int place = edge % 2 ? cell / columns : cell % columns;
    const float center = __fmul_rn(__fadd_rn((float)place, params.point_offset), stride);
    const float distance = __fmul_rn(__fdiv_rn(moment, sum), stride);
    const float corner = edge < 2 ? __fsub_rn(center, distance) : __fadd_rn(center, distance);
    const float limit = (float)(edge % 2 ? params.input_height : params.input_width);
    GFL_COUNT(edges_decoded, lane < 4);
    return gfl_min(gfl_max(corner, 0.0f), limit);
}

/* ---- Rank ---- */

typedef union { /* one after the other */
    GflRadix radix;
    GflKey chunk[GFL_RANK_CHUNK];
    float weights[GFL_RANK_FINALISTS][4][GFL_MAX_BINS];
} GflRankScratch;

/* The block: adds to `ranks` how many keys of a chunk are above each of `own`. Every 4 warps have 4 of them, as reading a key
 * takes longer than comparing it. */
__device__ inline void gfl_count_above(const GflKey *chunk, unsigned size, const GflKey *own, unsigned *ranks) {
    constexpr unsigned shared = 4;
    const unsigned lane = threadIdx.x % GFL_WARP, warp = threadIdx.x / GFL_WARP, first = warp / shared * shared;
    GflKey key[shared];
    unsigned above[shared] = {};
#pragma unroll
    for (unsigned i = 0; i < shared; ++i) key[i] = own[first + i];
#pragma unroll 4
    for (unsigned i = threadIdx.x % (shared * GFL_WARP); i < size; i += shared * GFL_WARP) {
        const GflKey other = chunk[i];
#pragma unroll
        for (unsigned j = 0; j < shared; ++j) above[j] += other > key[j];
    }
#pragma unroll
    for (unsigned j = 0; j < shared; j += 2) { /* two in one word, as a chunk has fewer than 2^16 */
        unsigned both = above[j] | above[j + 1] << 16;
#pragma unroll
        for (int step = GFL_WARP / 2; step; step /= 2) both += __shfl_xor_sync(GFL_ALL_LANES, both, step);
        if (lane == 0) atomicAdd(&ranks[first + j], both & 0xffff);
        if (lane == 1) atomicAdd(&ranks[first + j + 1], both >> 16);
    }
}

/* The block: the finalists of an image: all keys, or, of lists with more than have room, those from the bin of the last
 * candidate on. */
__device__ inline void gfl_find_finalists(const GflNmsParams &params, int image, const unsigned *segment_counts,
                                          const unsigned *bin_counts, GflKey *keys, unsigned *narrowed, GflFinalists &all,
                                          GflRadix &radix) {
    const unsigned thread = threadIdx.x, room = gfl_max_finalists(params);
    const int lists = gfl_num_lists(params);
    const size_t segments = gfl_max_segments(params);
    GflSegment segment = {};
    if (!gfl_find_segment(params, image, thread, &segment)) segment.list = -1;
    gfl_wait_for_previous();
    segment_counts += image * segments;
    bin_counts += image * segments * GFL_BINS;
    unsigned number = segment.list < 0 ? 0 : segment_counts[thread];
    size_t from = segment.begin;
    gfl_lay_out(params, segment, number, from, all);
    for (int list = 0; list < lists; ++list) {
        if (gfl_list_size(all, list) <= room) continue;
        const unsigned cut = gfl_find_cut(params, list, bin_counts, all);
        if (segment.list == list) number = bin_counts[thread * GFL_BINS + cut];
        gfl_lay_out(params, segment, number, from, all);
        if (gfl_list_size(all, list) <= room) continue;
        const size_t place = (size_t)image * lists + list;
        const size_t other = (size_t)params.batch * gfl_num_pairs(params) + place * room;
        const unsigned left = gfl_narrowed(params, all, list, keys, keys + other, radix, narrowed + place);
        if (segment.list == list) {
            number = segment.index ? 0 : left;
            from = other;
        }
        gfl_lay_out(params, segment, number, from, all);
    }
}

/* Every list's best max_candidates in one order, with their boxes: a finalist's rank in its list is the number of keys above
 * it; its place among all candidates is the sum of those ranks over the lists, of which each has max_candidates at most.
 * segment_counts [N, S], bin_counts [N, S, GFL_BINS], keys [N, A * C], boxes or reg_logits -> num_candidates [N], top_boxes
 * [N, L * M], top_scores and top_classes, class GFL_INVALID_CLASS where this can be no detection. `narrowed` [N, L] is 0, and
 * behind the keys are [N, L, F] for lists with too many keys in one bin. What the kernel before it wrote is not __restrict__, so
 * that no load of it is taken for one of a constant, and done before the wait. */
extern "C" __global__ void __launch_bounds__(GFL_RANK_THREADS, 2)
    gfl_rank_kernel(const __grid_constant__ GflNmsParams params, const unsigned *segment_counts, const unsigned *bin_counts,
                    GflKey *keys, unsigned *narrowed, const void *__restrict__ reg_logits,
                    const float *__restrict__ boxes, unsigned *num_candidates, float4 *top_boxes, float *top_scores,
                    int *top_classes) {
    static_assert(GFL_RANK_FINALISTS == GFL_RANK_WARPS, "a warp has a finalist");
    __shared__ GflFinalists all;
    __shared__ GflRankScratch scratch;
    __shared__ GflKey own[GFL_RANK_FINALISTS];
    __shared__ unsigned ranks[GFL_MAX_LEVELS][GFL_RANK_FINALISTS];
    const int image = blockIdx.y, lists = gfl_num_lists(params);
    const unsigned thread = threadIdx.x, lane = thread % GFL_WARP, warp = thread / GFL_WARP;
    gfl_let_next_begin();
    const unsigned most = params.max_candidates, index = blockIdx.x * GFL_RANK_FINALISTS + warp;
    if (thread < GFL_MAX_LEVELS * GFL_RANK_FINALISTS) ranks[thread / GFL_RANK_FINALISTS][thread % GFL_RANK_FINALISTS] = 0;
    gfl_find_finalists(params, image, segment_counts, bin_counts, keys, narrowed, all, scratch.radix);
    if (blockIdx.x == 0 && thread == 0) {
        unsigned sum = 0;
        for (int list = 0; list < lists; ++list) {
            const unsigned size = gfl_list_size(all, list);
            sum += size < most ? size : most;
        }
        num_candidates[image] = sum;
    }
    const unsigned total = all.list_begin[lists];
    if (blockIdx.x * GFL_RANK_FINALISTS >= total) return; /* the whole block */

    const bool valid = index < total;
    const GflKey key = valid ? gfl_finalist(all, keys, index) : 0;
    unsigned pair = 0, anchor = 0;
    float part[GFL_LANE_BINS] = {};
    bool begun = false;
    for (int list = 0; list < lists; ++list) {
        const unsigned end = all.list_begin[list + 1];
        for (unsigned base = all.list_begin[list]; base < end; base += GFL_RANK_CHUNK) {
            const unsigned size = end - base < GFL_RANK_CHUNK ? end - base : GFL_RANK_CHUNK;
            __syncthreads(); /* the last chunk was read */
#pragma unroll 4
            for (unsigned i = thread; i < size; i += GFL_RANK_THREADS) scratch.chunk[i] = gfl_finalist(all, keys, base + i);
            if (!begun && lane == 0) own[warp] = key; /* not before, as the loads take their time together */
            __syncthreads();
            if (!begun && valid) {
                pair = gfl_key_pair(key);
                anchor = pair / params.num_classes;
                gfl_load_box(params, reg_logits, boxes, image, anchor, part);
            }
            begun = true;
            gfl_count_above(scratch.chunk, size, own, ranks[list]);
        }
    }
    __syncthreads();
    unsigned place = 0;
    bool wins = valid;
    for (int list = 0; list < lists; ++list) {
        const unsigned rank = ranks[list][warp];
        if (rank >= most && all.list_begin[list] <= index && index < all.list_begin[list + 1]) wins = false;
        place += rank < most ? rank : most;
    }
    if (!wins) return; /* the whole warp */
    const float corner = boxes ? part[0] : gfl_decode_edge(params, anchor, part, scratch.weights[warp]);
    float corners[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) corners[i] = __uint_as_float(__shfl_sync(GFL_ALL_LANES, __float_as_uint(corner), i));
    if (lane) return;
    const float4 box = make_float4(corners[0], corners[1], corners[2], corners[3]);
    const size_t target = (size_t)image * lists * most + place;
    top_boxes[target] = box;
    top_scores[target] = gfl_key_score(key);
    top_classes[target] = gfl_sound(box, gfl_key_score(key)) ? (int)(pair % params.num_classes) : GFL_INVALID_CLASS;
}

#endif
