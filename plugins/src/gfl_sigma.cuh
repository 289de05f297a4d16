/* Sigma: the standard deviations of the edges of what was detected. */
#ifndef GFL_SIGMA_CUH
#define GFL_SIGMA_CUH

#include "gfl_nms.cuh"
#include "gfl_rank.cuh"

#define GFL_SIGMA_THREADS 128
#define GFL_SIGMA_WARPS (GFL_SIGMA_THREADS / GFL_WARP)

/* What a detection may have been decoded from. */
typedef struct {
    float apart; /* pixels between their boxes, over the four edges */
    unsigned pair;
} GflOrigin;

__device__ inline bool gfl_comes_before(const GflOrigin &a, const GflOrigin &b) {
    return a.apart < b.apart || (a.apart == b.apart && a.pair < b.pair);
}

/* One detection, in every lane; `edge` is the lane's, lane % 4. */
typedef struct {
    float score, edge;
    int label;
} GflDetection;

__device__ inline bool gfl_same(const float4 &a, const float4 &b) {
    return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w;
}

/* A warp: how many of the detections before `place` are like that one in score, class and box. */
__device__ inline unsigned gfl_twins_before(const GflDetections &found, unsigned place) {
    const unsigned lane = threadIdx.x % GFL_WARP;
    unsigned twins = 0;
    for (unsigned base = 0; base < place; base += GFL_WARP) {
        const unsigned i = base + lane;
        const bool twin = i < place && found.scores[i] == found.scores[place] &&
                          found.classes[i] == found.classes[place] && gfl_same(found.boxes[i], found.boxes[place]);
        twins += __popc(__ballot_sync(GFL_ALL_LANES, twin));
    }
    return twins;
}

/* A warp: the box of an anchor, an edge in every lane (lane % 4); of a distribution, `weights` keeps the bins of all edges. */
__device__ inline float gfl_edge_of(const GflNmsParams &params, const void *reg_logits, const float *boxes, int image,
                                    unsigned anchor, float (&weights)[4][GFL_MAX_BINS]) {
    float part[GFL_LANE_BINS];
    gfl_load_box(params, reg_logits, boxes, image, anchor, part);
    __syncwarp(); /* the weights of the anchor before were read */
    return boxes ? part[0] : gfl_decode_edge(params, anchor, part, weights);
}

/* A warp: which pair a detection was decoded from. The kernels before this one do not say, so that they need not carry it where
 * nobody asks; but keys of the same score and class are few, mostly one, and their boxes differ. Of boxes that do not, the
 * detections are in the order of the pairs: it is the one after `twins` others. Nearest instead of equal, as a compiler may round
 * the same arithmetic in two ways. */
__device__ inline unsigned gfl_find_pair(const GflNmsParams &params, int image, const GflDetection &detection, unsigned twins,
                                         const unsigned *bin_counts, const GflKey *keys, const void *reg_logits,
                                         const float *boxes, float (&weights)[4][GFL_MAX_BINS]) {
    const unsigned lane = threadIdx.x % GFL_WARP, segments = gfl_max_segments(params), bin = gfl_bin(params, detection.score);
    GflOrigin best, last = {-1.0f, 0};
    for (;; last = best, --twins) {
        best = {GFL_INFINITY, ~0u};
        for (unsigned first = 0; first < segments; first += GFL_WARP) {
            const GflKey *next = nullptr, *end = nullptr; /* of the lane's segment, those of the bin */
            GflSegment segment;
            if (gfl_find_segment(params, image, first + lane, &segment)) {
                const unsigned *counts = bin_counts + ((size_t)image * segments + first + lane) * GFL_BINS;
                end = keys + segment.begin + counts[bin];
                next = keys + segment.begin + (bin + 1 < GFL_BINS ? counts[bin + 1] : 0);
            }
            while (__ballot_sync(GFL_ALL_LANES, next < end)) {
                const GflKey key = next < end ? *next++ : 0;
                const unsigned pair = gfl_key_pair(key);
                const bool like = key && gfl_key_score(key) == detection.score &&
                                  (int)(pair % params.num_classes) == detection.label;
                for (unsigned likes = __ballot_sync(GFL_ALL_LANES, like); likes; likes &= likes - 1) {
                    const unsigned other = __shfl_sync(GFL_ALL_LANES, pair, __ffs(likes) - 1);
                    const float edge = gfl_edge_of(params, reg_logits, boxes, image, other / params.num_classes, weights);
                    float apart = fabsf(edge - detection.edge);
#pragma unroll
                    for (int step = 1; step < 4; step *= 2)
                        apart += __uint_as_float(__shfl_xor_sync(GFL_ALL_LANES, __float_as_uint(apart), step));
                    const GflOrigin origin = {apart, other};
                    if (gfl_comes_before(last, origin) && gfl_comes_before(origin, best)) best = origin;
                }
            }
        }
        if (!twins) return best.pair;
    }
}

/* The deviation of an edge, lane % 4, in pixels, from the weights of its bins: the root of the mean square distance from the
 * mean, which keeps the digits of a sure edge. */
__device__ inline float gfl_deviation(const GflNmsParams &params, unsigned anchor, const float (&weights)[4][GFL_MAX_BINS]) {
    const unsigned edge = threadIdx.x % 4;
    const int bins = params.reg_max + 1;
    float sum = 0.0f, moment = 0.0f, squares = 0.0f;
    for (int i = 0; i < bins; ++i) {
        sum += weights[edge][i];
        moment += weights[edge][i] * (float)i;
    }
    const float mean = moment / sum;
    for (int i = 0; i < bins; ++i) squares += weights[edge][i] * ((float)i - mean) * ((float)i - mean);
    int level = 0, cell = anchor;
    while (level < params.num_levels - 1 && cell >= gfl_level_anchors(params, level))
        cell -= gfl_level_anchors(params, level++);
    return sqrtf(squares / sum) * (float)params.strides[level];
}

/* After the others, where it is asked for; a warp has a detection.
 * bin_counts [N, S, GFL_BINS], keys [N, A * C], reg_logits, or boxes and sigmas [N, A, 4], and the outputs of GflNmsOutputs
 * -> det_sigmas [N, K, 4], padded with 0. One block of a multiprocessor is enough: with more, some GPUs' code spills. */
extern "C" __global__ void __launch_bounds__(GFL_SIGMA_THREADS, 1)
    gfl_sigma_kernel(const __grid_constant__ GflNmsParams params, const unsigned *bin_counts, const GflKey *keys,
                     const void *reg_logits, const float *boxes, const float *sigmas, const int *num_dets,
                     const float *det_boxes, const float *det_scores, const int *det_classes, float *det_sigmas) {
    __shared__ float all_weights[GFL_SIGMA_WARPS][4][GFL_MAX_BINS];
    const int image = blockIdx.y;
    const unsigned lane = threadIdx.x % GFL_WARP, warp = threadIdx.x / GFL_WARP, most = params.max_detections;
    const unsigned place = blockIdx.x * GFL_SIGMA_WARPS + warp;
    if (place >= most) return; /* the whole warp */
    float *target = det_sigmas + ((size_t)image * most + place) * 4;
    if (place >= (unsigned)num_dets[image]) {
        if (lane < 4) target[lane] = 0.0f;
        return;
    }
    const size_t begin = (size_t)image * most;
    const GflDetections found = {(float4 *)det_boxes + begin, (float *)det_scores + begin, (int *)det_classes + begin};
    const GflDetection detection = {found.scores[place], det_boxes[(begin + place) * 4 + lane % 4], found.classes[place]};
    float(&weights)[4][GFL_MAX_BINS] = all_weights[warp];
    const unsigned pair = gfl_find_pair(params, image, detection, gfl_twins_before(found, place), bin_counts, keys, reg_logits,
                                        boxes, weights);
    const unsigned anchor = pair / params.num_classes;
    float sigma;
    if (boxes) {
        sigma = sigmas[((size_t)image * params.num_anchors + anchor) * 4 + lane % 4];
    } else {
        gfl_edge_of(params, reg_logits, boxes, image, anchor, weights);
        sigma = gfl_deviation(params, anchor, weights);
    }
    if (lane < 4) target[lane] = sigma;
}

#endif
