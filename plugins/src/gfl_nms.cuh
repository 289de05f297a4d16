/* Rank, mask and suppress: from finalists to detections. */
#ifndef GFL_NMS_CUH
#define GFL_NMS_CUH

#include "gfl_common.cuh"

/* ---- Boxes ---- */

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

/* ---- Decode ---- */

/* The distribution of an edge, the `bins` values from `first` on, loaded once; of float16 as whole words, of which the first
 * and the last may be half another's. A tensor has an even number of them, so that none lies beyond its end. */
__device__ inline void gfl_load_bins(const void *values, size_t first, int bins, int dtype,
                                     float (&found)[GFL_MAX_BINS]) {
    if (dtype == GFL_FLOAT32) {
#pragma unroll
        for (int i = 0; i < GFL_MAX_BINS; ++i) {
            if (i >= bins) break;
            found[i] = ((const float *)values)[first + i];
        }
        return;
    }
    const unsigned odd = first % 2, *words = (const unsigned *)values + first / 2;
    unsigned word = words[0];
#pragma unroll
    for (int i = 0; i < GFL_MAX_BINS; i += 2) {
        if (i >= bins) break;
        const unsigned next = i + 2 < bins + (int)odd ? words[i / 2 + 1] : 0;
        const unsigned both = __funnelshift_r(word, next, 16 * odd);
        found[i] = gfl_half_to_float((unsigned short)both);
        if (i + 1 < GFL_MAX_BINS) found[i + 1] = gfl_half_to_float((unsigned short)(both >> 16));
        word = next;
    }
}

/* One edge (0 left, 1 top, 2 right, 3 bottom) of an anchor's box in pixels: the expectation of its distribution, in strides,
 * from the cell's point, clipped to the input. NaN stays. */
__device__ inline float gfl_decode_edge(const GflNmsParams &params, const void *reg_logits, int image, int anchor,
                                        int edge) {
    const int bins = params.reg_max + 1;
    float logits[GFL_MAX_BINS];
    gfl_load_bins(reg_logits, (((size_t)image * params.num_anchors + anchor) * 4 + edge) * bins, bins, params.dtype, logits);
    float largest = -GFL_INFINITY, weights = 0.0f, moment = 0.0f;
#pragma unroll
    for (int i = 0; i < GFL_MAX_BINS; ++i) {
        if (i >= bins) break;
        largest = fmaxf(largest, logits[i]);
    }
#pragma unroll
    for (int i = 0; i < GFL_MAX_BINS; ++i) {
        if (i >= bins) break;
        const float weight = expf(logits[i] - largest);
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
    GFL_COUNT(edges_decoded, 1);
    return gfl_min(gfl_max(corner, 0.0f), limit);
}

/* ---- Rank ---- */

/* A group: how many of `count` keys are above `key`. */
__device__ inline unsigned gfl_count_above(const GflKey *keys, unsigned count, GflKey key, unsigned member) {
    unsigned above = 0;
#pragma unroll 4
    for (unsigned i = member; i < count; i += GFL_RANK_GROUP) above += keys[i] > key;
    return above;
}

/* Every list's best max_candidates in one order, with their boxes: a finalist's rank in its list is the number of keys above
 * it; its place among all candidates is the sum of those ranks over the lists, of which each has max_candidates at most.
 * counts [N, L + 1], finalists [N, L, F], boxes or reg_logits -> top_boxes [N, L * M], top_scores and top_classes, class
 * GFL_INVALID_CLASS where this can be no detection. */
extern "C" __global__ void __launch_bounds__(GFL_RANK_THREADS)
    gfl_rank_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ counts,
                    const GflKey *__restrict__ finalists, const void *__restrict__ reg_logits,
                    const float *__restrict__ boxes, float4 *__restrict__ top_boxes, float *__restrict__ top_scores,
                    int *__restrict__ top_classes) {
    __shared__ GflKey chunk[GFL_RANK_CHUNK];
    const int image = blockIdx.y, lists = gfl_num_lists(params);
    const unsigned member = threadIdx.x % GFL_RANK_GROUP, room = gfl_max_finalists(params);
    const unsigned most = params.max_candidates, groups = GFL_RANK_THREADS / GFL_RANK_GROUP;
    const unsigned blocks = (room + groups - 1) / groups; /* of a list */
    const int own = blockIdx.x / blocks;
    const unsigned index = blockIdx.x % blocks * groups + threadIdx.x / GFL_RANK_GROUP;
    counts += image * (lists + 1);
    finalists += (size_t)image * lists * room;
    if (blockIdx.x % blocks * groups >= counts[own]) return; /* the whole block */
    const bool valid = index < counts[own];
    const GflKey key = valid ? finalists[own * room + index] : 0;
    unsigned place = 0;
    bool wins = valid;
    for (int list = 0; list < lists; ++list) {
        const unsigned count = counts[list];
        unsigned rank = 0;
        for (unsigned base = 0; base < count; base += GFL_RANK_CHUNK) {
            const unsigned size = count - base < GFL_RANK_CHUNK ? count - base : GFL_RANK_CHUNK;
            __syncthreads();
            for (unsigned i = threadIdx.x; i < size; i += GFL_RANK_THREADS) chunk[i] = finalists[list * room + base + i];
            __syncthreads();
            rank += gfl_count_above(chunk, size, key, member);
        }
#pragma unroll
        for (int step = GFL_RANK_GROUP / 2; step; step /= 2) rank += __shfl_xor_sync(GFL_ALL_LANES, rank, step);
        if (list == own && rank >= most) wins = false;
        place += rank < most ? rank : most;
    }
    const unsigned pair = gfl_key_pair(key);
    const int anchor = pair / params.num_classes, edge = member % 4;
    float corner = 0.0f;
    if (wins && member < 4)
        corner = boxes ? boxes[((size_t)image * params.num_anchors + anchor) * 4 + edge]
                       : gfl_decode_edge(params, reg_logits, image, anchor, edge);
    float corners[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const unsigned from = threadIdx.x / GFL_RANK_GROUP * GFL_RANK_GROUP % GFL_WARP + i;
        corners[i] = __uint_as_float(__shfl_sync(GFL_ALL_LANES, __float_as_uint(corner), from));
    }
    if (!wins || member) return;
    const float4 box = make_float4(corners[0], corners[1], corners[2], corners[3]);
    const size_t target = (size_t)image * lists * most + place;
    top_boxes[target] = box;
    top_scores[target] = gfl_key_score(key);
    top_classes[target] = gfl_sound(box, gfl_key_score(key)) ? (int)(pair % params.num_classes) : GFL_INVALID_CLASS;
}

/* ---- Mask ---- */

/* Which candidates would suppress which, of the first gfl_mask_candidates: bit i of mask[n][w][j] says that 32 w + i, if it is
 * kept, takes j away, which comes after it; a candidate that can be no detection takes itself away. A block per word of 32
 * candidates and 32 that may be suppressed, one per lane; a warp per byte of the word.
 * counts [N, L + 1], top_boxes, top_classes [N, L * M] -> mask [N, W / 32, W]. */
extern "C" __global__ void __launch_bounds__(GFL_MASK_THREADS)
    gfl_mask_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ counts,
                    const float4 *__restrict__ top_boxes, const int *__restrict__ top_classes,
                    unsigned char *__restrict__ mask) {
    constexpr unsigned rows = 8, warps = GFL_WARP / rows;
    static_assert(GFL_MASK_THREADS == warps * GFL_WARP, "a warp has a byte");
    __shared__ float4 row_boxes[warps][rows];
    __shared__ int row_classes[warps][rows];
    const int image = blockIdx.z;
    const unsigned lane = threadIdx.x % GFL_WARP, warp = threadIdx.x / GFL_WARP;
    const unsigned column = blockIdx.x * GFL_WARP + lane, first_row = blockIdx.y * GFL_WARP + warp * rows;
    const unsigned room = gfl_mask_candidates(params), candidates = gfl_num_candidates(params, counts, image);
    const unsigned size = candidates < room ? candidates : room;
    if (blockIdx.y > blockIdx.x || blockIdx.x * GFL_WARP >= size) return; /* the whole block */
    const size_t base = (size_t)image * gfl_num_lists(params) * params.max_candidates;
    if (lane < rows) {
        const bool there = first_row + lane < size;
        row_classes[warp][lane] = there ? top_classes[base + first_row + lane] : GFL_INVALID_CLASS;
        if (there) row_boxes[warp][lane] = top_boxes[base + first_row + lane];
    }
    __syncwarp();
    const bool valid = column < size;
    const int label = valid ? top_classes[base + column] : GFL_INVALID_CLASS;
    const float4 box = valid ? top_boxes[base + column] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    unsigned hits = 0;
#pragma unroll
    for (unsigned i = 0; i < rows; ++i) {
        const int other = row_classes[warp][i];
        if (other == GFL_INVALID_CLASS || first_row + i >= column) continue;
        if ((params.class_agnostic || other == label) && gfl_overlaps(row_boxes[warp][i], box, params.iou_threshold))
            hits |= 1u << i;
    }
    if (valid && label == GFL_INVALID_CLASS && first_row <= column && column < first_row + rows)
        hits |= 1u << (column - first_row);
    mask[(((size_t)image * (room / GFL_WARP) + blockIdx.y) * room + column) * warps + warp] = (unsigned char)hits;
}

/* ---- Suppress ---- */

#define GFL_MASK_WORDS (GFL_MASK_CANDIDATES / GFL_WARP)
#define GFL_HELPERS (GFL_SUPPRESS_THREADS / GFL_WARP - 1)
#define GFL_HELPER_WORDS ((GFL_MASK_WORDS + GFL_HELPERS - 1) / GFL_HELPERS)

typedef struct {
    unsigned kept[GFL_MASK_WORDS];    /* bit i of word w: candidate 32 w + i is kept */
    int kept_before[GFL_MASK_WORDS + 1]; /* of all words before w */
    unsigned gone[2];                 /* of an even and an odd word: suppressed by all words but the one before it */
    unsigned invalid;
} GflWalk;

/* A warp: which of a word's candidates are kept. `rows` has, per lane, the earlier ones of the word that would take the lane's
 * away; `open` those that no other word takes away. As often as the longest chain of suppression among them is long. */
__device__ inline unsigned gfl_resolve(unsigned open, unsigned rows, unsigned lane) {
    unsigned kept = 0;
    while (open) {
        const bool own = open >> lane & 1;
        const unsigned keep = __ballot_sync(GFL_ALL_LANES, own && !(rows & open));
        kept |= keep;
        open &= ~(keep | __ballot_sync(GFL_ALL_LANES, own && (rows & keep)));
    }
    return kept;
}

/* The block: which of the candidates of the mask are kept, `wanted` at most, word by word. Warp 0 decides; of what takes a
 * word's candidates away, the others have put together all but the word before it, with loads a turn ahead. Returns the
 * number of words that were decided. */
__device__ inline unsigned gfl_walk_mask(const unsigned *mask, unsigned room, unsigned size, int wanted, GflWalk &walk) {
    const unsigned lane = threadIdx.x % GFL_WARP, warp = threadIdx.x / GFL_WARP;
    const unsigned words = (size + GFL_WARP - 1) / GFL_WARP;
    unsigned ahead[GFL_HELPER_WORDS] = {}, rows = 0, previous = 0, kept_previous = 0;
    if (threadIdx.x == 0) walk.gone[0] = walk.gone[1] = walk.kept_before[0] = walk.invalid = 0;
    if (warp == 0 && words) rows = mask[lane];
    __syncthreads();
    unsigned word = 0;
    while (word < words && walk.kept_before[word] < wanted) {
        if (warp == 0) {
            const unsigned bits = size - word * GFL_WARP;
            const unsigned real = bits >= GFL_WARP ? GFL_ALL_LANES : (1u << bits) - 1;
            const unsigned taken = __ballot_sync(GFL_ALL_LANES, (previous & kept_previous) != 0) | walk.gone[word % 2];
            const unsigned bad = __ballot_sync(GFL_ALL_LANES, rows >> lane & 1) & real;
            const int before = walk.kept_before[word];
            unsigned kept = gfl_resolve(real & ~(taken | bad), rows, lane);
            while (before + __popc(kept) > wanted) kept &= ~(1u << (GFL_WARP - 1 - __clz(kept)));
            kept_previous = kept;
            if (word + 1 < words) {
                previous = mask[(size_t)word * room + (word + 1) * GFL_WARP + lane];
                rows = mask[(size_t)(word + 1) * room + (word + 1) * GFL_WARP + lane];
            }
            __syncwarp();
            if (lane == 0) {
                walk.kept[word] = kept;
                walk.kept_before[word + 1] = before + __popc(kept);
                walk.gone[word % 2] = 0; /* for the word after the next */
                walk.invalid += __popc(bad);
            }
        } else {
            bool hit = false;
#pragma unroll
            for (int i = 0; i < GFL_HELPER_WORDS; ++i) {
                const unsigned source = warp - 1 + i * GFL_HELPERS;
                if (source < word && (ahead[i] & walk.kept[source])) hit = true;
                if (source <= word && word + 2 < words)
                    ahead[i] = mask[(size_t)source * room + (word + 2) * GFL_WARP + lane];
            }
            const unsigned hits = __ballot_sync(GFL_ALL_LANES, hit);
            if (lane == 0 && hits) atomicOr(&walk.gone[(word + 1) % 2], hits);
        }
        __syncthreads();
        ++word;
    }
    return word;
}

/* Greedy NMS of an image by one block, until max_detections are kept.
 * counts [N, L + 1], mask [N, W / 32, W], top_boxes, top_scores, top_classes [N, L * M] -> the outputs of GflNmsOutputs,
 * padded. Candidates beyond the mask, of which only several long lists have any, are compared with all that is kept, one by
 * one. */
extern "C" __global__ void __launch_bounds__(GFL_SUPPRESS_THREADS)
    gfl_suppress_kernel(const __grid_constant__ GflNmsParams params, const unsigned *__restrict__ counts,
                        const unsigned *__restrict__ mask, const float4 *__restrict__ top_boxes,
                        const float *__restrict__ top_scores, const int *__restrict__ top_classes, int *num_dets,
                        float *det_boxes, float *det_scores, int *det_classes) {
    __shared__ GflWalk walk;
    const int image = blockIdx.x, thread = threadIdx.x, wanted = params.max_detections;
    const unsigned room = gfl_mask_candidates(params), candidates = gfl_num_candidates(params, counts, image);
    const size_t base = (size_t)image * gfl_num_lists(params) * params.max_candidates;
    float4 *kept_boxes = (float4 *)det_boxes + (size_t)image * wanted;
    float *kept_scores = det_scores + (size_t)image * wanted;
    int *kept_classes = det_classes + (size_t)image * wanted;
    top_boxes += base;
    top_scores += base;
    top_classes += base;

    const unsigned size = candidates < room ? candidates : room;
    const unsigned words = gfl_walk_mask(mask + (size_t)image * (room / GFL_WARP) * room, room, size, wanted, walk);
    for (unsigned i = thread; i < words * GFL_WARP; i += GFL_SUPPRESS_THREADS) {
        const unsigned bits = walk.kept[i / GFL_WARP], bit = i % GFL_WARP;
        if (!(bits >> bit & 1)) continue;
        const int place = walk.kept_before[i / GFL_WARP] + __popc(bits & ((1u << bit) - 1));
        kept_boxes[place] = top_boxes[i];
        kept_scores[place] = top_scores[i];
        kept_classes[place] = top_classes[i];
    }
    int kept = walk.kept_before[words], invalid = (int)walk.invalid;

    for (unsigned i = room; i < candidates && kept < wanted; ++i) {
        const float4 box = top_boxes[i];
        const int label = top_classes[i];
        bool hit = label == GFL_INVALID_CLASS;
        if (hit) ++invalid;
        __syncthreads(); /* what was kept last can be read */
        for (int j = thread; j < kept && !hit; j += GFL_SUPPRESS_THREADS)
            hit = (params.class_agnostic || kept_classes[j] == label) &&
                  gfl_overlaps(kept_boxes[j], box, params.iou_threshold);
        if (__syncthreads_or(hit)) continue;
        if (thread == 0) {
            kept_boxes[kept] = box;
            kept_scores[kept] = top_scores[i];
            kept_classes[kept] = label;
        }
        ++kept;
    }

    for (int i = kept + thread; i < wanted; i += GFL_SUPPRESS_THREADS) {
        kept_boxes[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        kept_scores[i] = 0.0f;
        kept_classes[i] = i - kept < invalid ? GFL_INVALID_CLASS : -1;
    }
    if (thread == 0) num_dets[image] = kept;
}

#endif
