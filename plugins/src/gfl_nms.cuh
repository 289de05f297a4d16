/* Suppress: from candidates to detections. */
#ifndef GFL_NMS_CUH
#define GFL_NMS_CUH

#include "gfl_boxes.cuh"

#define GFL_HELPERS (GFL_SUPPRESS_THREADS / GFL_WARP - 1)
#define GFL_NEAR_CANDIDATES GFL_SUPPRESS_THREADS /* in shared memory at a time */
#define GFL_NEAR_KEPT 512                        /* boxes in shared memory; later ones are read from the output */

/* Of two words of 32 candidates at a time, an even and an odd one: */
typedef struct {
    unsigned rows[GFL_WARP];   /* of each candidate, the earlier ones of the word that overlap it */
    unsigned before[GFL_WARP]; /* of each candidate, those of the word before that overlap it */
    unsigned gone;             /* candidates that overlap what is kept of all words before that */
    unsigned kept;             /* boxes kept of all words before this one */
} GflWord;

/* What all warps of the block share. */
typedef struct {
    float4 boxes[GFL_NEAR_CANDIDATES], kept_boxes[GFL_NEAR_KEPT];
    float scores[GFL_NEAR_CANDIDATES];
    int classes[GFL_NEAR_CANDIDATES], kept_classes[GFL_NEAR_KEPT];
    GflWord words[2];
    unsigned invalid;
} GflWalk;

/* Of an image, padded. */
typedef struct {
    float4 *boxes;
    float *scores;
    int *classes;
} GflDetections;

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

/* Bits of 32 boxes from `others` on that overlap `box`: those that a helper compares it with. */
__device__ inline unsigned gfl_share(const GflNmsParams &params, const float4 &box, int label, const float4 *others,
                                     const int *classes, unsigned number, unsigned helper) {
    unsigned hits = 0, doubts = 0;
#pragma unroll
    for (unsigned turn = 0; turn < (GFL_WARP + GFL_HELPERS - 1) / GFL_HELPERS; ++turn) {
        const unsigned i = helper + turn * GFL_HELPERS;
        if (i >= GFL_WARP) break; /* all of the warp */
        const int other = classes[i];
        const bool meets = i < number && other != GFL_INVALID_CLASS && (params.class_agnostic || other == label);
        bool unsure;
        const bool hit = gfl_seems_to_overlap(others[i], box, params.iou_threshold, &unsure);
        hits |= (unsigned)(meets && hit) << i;
        doubts |= (unsigned)(meets && unsure) << i;
    }
    for (; doubts; doubts &= doubts - 1) {
        const unsigned i = __ffs(doubts) - 1, bit = doubts & (0u - doubts);
        hits = gfl_overlaps(others[i], box, params.iou_threshold) ? hits | bit : hits & ~bit;
    }
    return hits;
}

/* Whether any of the kept boxes from `from` on that a helper compares it with overlaps `box`. */
__device__ inline bool gfl_meets_kept(const GflNmsParams &params, const float4 &box, int label, const float4 *boxes,
                                      const int *classes, unsigned from, unsigned kept) {
    bool hit = false, doubt = false;
#pragma unroll 4
    for (unsigned i = from; i < kept; i += GFL_HELPERS) {
        bool unsure;
        const bool meets = params.class_agnostic || classes[i] == label;
        const bool seems = gfl_seems_to_overlap(boxes[i], box, params.iou_threshold, &unsure);
        hit |= meets && seems && !unsure;
        doubt |= meets && unsure;
    }
    for (unsigned i = from; doubt && !hit && i < kept; i += GFL_HELPERS)
        hit = (params.class_agnostic || classes[i] == label) && gfl_overlaps(boxes[i], box, params.iou_threshold);
    return hit;
}

/* A helper, which is a warp: its share of what overlaps the candidates of a word, lane by lane: the 32 that begin at `first` of
 * those in shared memory. `kept` boxes are known; of the word before, if `follows`, all may be kept yet. */
__device__ inline void gfl_prepare(const GflNmsParams &params, unsigned first, bool follows, unsigned kept,
                                   const GflDetections &out, GflWalk &walk, GflWord &word) {
    const unsigned lane = threadIdx.x % GFL_WARP, helper = threadIdx.x / GFL_WARP - 1;
    const float4 box = walk.boxes[first + lane];
    const int label = walk.classes[first + lane];
    const unsigned near = kept < GFL_NEAR_KEPT ? kept : GFL_NEAR_KEPT;
    const unsigned rows = gfl_share(params, box, label, &walk.boxes[first], &walk.classes[first], lane, helper);
    if (rows) atomicOr(&word.rows[lane], rows);
    if (follows) {
        const unsigned previous = first - GFL_WARP;
        const unsigned before =
            gfl_share(params, box, label, &walk.boxes[previous], &walk.classes[previous], GFL_WARP, helper);
        if (before) atomicOr(&word.before[lane], before);
    }
    bool gone = gfl_meets_kept(params, box, label, walk.kept_boxes, walk.kept_classes, helper, near);
    if (kept > near) gone |= gfl_meets_kept(params, box, label, out.boxes, out.classes, near + helper, kept);
    const unsigned all = __ballot_sync(GFL_ALL_LANES, gone);
    if (lane == 0 && all) atomicOr(&word.gone, all);
}

/* The first warp: decides about a word of `size` candidates, of which `wanted` may be kept with all before it, and writes those
 * that are. Returns the kept ones' bits. */
__device__ inline unsigned gfl_decide(unsigned first, unsigned size, unsigned wanted, unsigned kept_previous,
                                      const GflDetections &out, GflWalk &walk, GflWord &word, GflWord &next) {
    const unsigned lane = threadIdx.x % GFL_WARP, before = word.kept;
    const int label = walk.classes[first + lane];
    const unsigned real = size >= GFL_WARP ? GFL_ALL_LANES : (1u << size) - 1;
    const unsigned bad = __ballot_sync(GFL_ALL_LANES, label == GFL_INVALID_CLASS) & real;
    const unsigned taken = __ballot_sync(GFL_ALL_LANES, (word.before[lane] & kept_previous) != 0) | word.gone;
    unsigned kept = gfl_resolve(real & ~(taken | bad), word.rows[lane], lane);
    while (before + __popc(kept) > wanted) kept &= ~(1u << (GFL_WARP - 1 - __clz(kept)));
    if (kept >> lane & 1) {
        const unsigned place = before + __popc(kept & ((1u << lane) - 1));
        const float4 box = walk.boxes[first + lane];
        if (place < GFL_NEAR_KEPT) {
            walk.kept_boxes[place] = box;
            walk.kept_classes[place] = label;
        }
        out.boxes[place] = box;
        out.scores[place] = walk.scores[first + lane];
        out.classes[place] = label;
    }
    word.rows[lane] = word.before[lane] = 0; /* for the word after the next */
    __syncwarp();
    if (lane == 0) {
        word.gone = 0;
        next.kept = before + __popc(kept);
        walk.invalid += __popc(bad);
    }
    return kept;
}

/* The block: which of `size` candidates in shared memory are kept, word by word from `word` on. The first warp decides; what
 * takes a word's candidates away, the others find while it decides about the word before. Returns the word after the last. */
__device__ inline unsigned gfl_walk(const GflNmsParams &params, unsigned word, unsigned size, const GflDetections &out,
                                    GflWalk &walk) {
    const unsigned wanted = params.max_detections;
    const bool decides = threadIdx.x < GFL_WARP;
    unsigned kept_previous = 0;
    if (!decides) gfl_prepare(params, 0, false, walk.words[word % 2].kept, out, walk, walk.words[word % 2]);
    __syncthreads();
    for (unsigned first = 0; first < size && walk.words[word % 2].kept < wanted; first += GFL_WARP, ++word) {
        GflWord &own = walk.words[word % 2], &next = walk.words[(word + 1) % 2];
        if (decides)
            kept_previous = gfl_decide(first, size - first, wanted, kept_previous, out, walk, own, next);
        else if (first + GFL_WARP < size)
            gfl_prepare(params, first + GFL_WARP, true, own.kept, out, walk, next);
        __syncthreads();
    }
    return word;
}

/* Greedy NMS of an image by one block, until max_detections are kept.
 * num_candidates [N], top_boxes, top_scores, top_classes [N, L * M] -> the outputs of GflNmsOutputs, padded. */
extern "C" __global__ void __launch_bounds__(GFL_SUPPRESS_THREADS, 1)
    gfl_suppress_kernel(const __grid_constant__ GflNmsParams params, const unsigned *num_candidates,
                        const float4 *top_boxes, const float *top_scores, const int *top_classes, int *num_dets,
                        float *det_boxes, float *det_scores, int *det_classes) {
    __shared__ GflWalk walk;
    const unsigned image = blockIdx.x, thread = threadIdx.x, wanted = params.max_detections;
    const unsigned room = gfl_num_lists(params) * params.max_candidates;
    const size_t base = (size_t)image * room;
    const GflDetections out = {(float4 *)det_boxes + (size_t)image * wanted, det_scores + (size_t)image * wanted,
                               det_classes + (size_t)image * wanted};
    if (thread < GFL_WARP)
        for (GflWord &word : walk.words) word.rows[thread] = word.before[thread] = 0;
    if (thread == 0) walk.words[0].gone = walk.words[1].gone = walk.words[0].kept = walk.invalid = 0;
    gfl_wait_for_previous();
    float4 box;
    float score;
    int label;
    const auto load = [&](unsigned begin) { /* also where no candidate is, so as not to wait for their number */
        const unsigned place = begin + thread < room ? begin + thread : room - 1;
        box = top_boxes[base + place];
        score = top_scores[base + place];
        label = top_classes[base + place];
    };
    load(0);
    const unsigned candidates = num_candidates[image];
    unsigned word = 0;
    for (unsigned begin = 0; begin < candidates; begin += GFL_NEAR_CANDIDATES) {
        if (begin) load(begin);
        const unsigned left = candidates - begin, size = left < GFL_NEAR_CANDIDATES ? left : GFL_NEAR_CANDIDATES;
        walk.boxes[thread] = box;
        walk.scores[thread] = score;
        walk.classes[thread] = thread < size ? label : GFL_INVALID_CLASS;
        __syncthreads();
        word = gfl_walk(params, word, size, out, walk);
        if (walk.words[word % 2].kept >= wanted) break;
        __syncthreads(); /* all have read how many */
    }
    if (!candidates) __syncthreads();
    const unsigned kept = walk.words[word % 2].kept;
    for (unsigned i = kept + thread; i < wanted; i += GFL_SUPPRESS_THREADS) {
        out.boxes[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        out.scores[i] = 0.0f;
        out.classes[i] = i - kept < walk.invalid ? GFL_INVALID_CLASS : -1;
    }
    if (thread == 0) num_dets[image] = (int)kept;
}

#endif
