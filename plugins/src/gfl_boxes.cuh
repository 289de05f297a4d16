/* Boxes: their areas, whether they are sound, and which overlap. */
#ifndef GFL_BOXES_CUH
#define GFL_BOXES_CUH

#include "gfl_common.cuh"

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

__device__ inline float gfl_intersection(const float4 &a, const float4 &b) {
    const float width = fmaxf(__fsub_rn(fminf(a.z, b.z), fmaxf(a.x, b.x)), 0.0f);
    const float height = fmaxf(__fsub_rn(fminf(a.w, b.w), fmaxf(a.y, b.y)), 0.0f);
    return __fmul_rn(width, height);
}

__device__ inline float gfl_union(const float4 &a, const float4 &b, float intersection) {
    return fmaxf(__fsub_rn(__fadd_rn(gfl_area(a), gfl_area(b)), intersection), 1e-9f);
}

/* Is the IoU of two boxes strictly above the limit, 0 or more? Rounded like NumPy's float32, step by step: a compiler that
 * fused a product and a sum would decide otherwise at the threshold. Of boxes that are not sound, any answer. */
__device__ inline bool gfl_overlaps(const float4 &a, const float4 &b, float limit) {
    const float intersection = gfl_intersection(a, b);
    return __fdiv_rn(intersection, gfl_union(a, b, intersection)) > limit;
}

/* The same without a division or a branch, for loops whose turns overlap: right unless `unsure`, which is where the IoU is so
 * near to the limit, or so small, that rounding decides. */
__device__ inline bool gfl_seems_to_overlap(const float4 &a, const float4 &b, float limit, bool *unsure) {
    const float intersection = gfl_intersection(a, b), edge = limit * gfl_union(a, b, intersection);
    const float beyond = intersection - edge;
    *unsure = intersection > 0.0f && !(fabsf(beyond) > 1e-6f * edge && intersection > 1e-20f);
    GFL_COUNT(ious, 1);
    return beyond > 0.0f;
}

#endif
