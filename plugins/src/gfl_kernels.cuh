/* The device code: filter, rank, suppress, sigma; resize. Compiles with nvcc, with NVRTC (no header but gfl_kernels.h and those
 * beside this one) and, under plugins/emulation, with a host compiler.
 *
 * Launch plan
 *
 * Names: N batch, A anchors, C classes, M max_candidates; L lists of candidates per image: num_levels if per_level, else 1.
 * S = min(A * C / GFL_SEGMENT_STEP, GFL_SEGMENTS) + 2 L segments of an image at most, rounded down.
 * F = M + GFL_SPARE_FINALISTS finalists of a list.
 * Kernels are extern "C"; `params` is a GflNmsParams by value (96 bytes), the rest are pointers to device memory. There is no
 * dynamic shared memory.
 *
 *   order  kernel               grid (x, y, z)                            block
 *   1      gfl_filter_kernel    (S, N)                                    GFL_FILTER_THREADS
 *   2      gfl_rank_kernel      (ceil(L * F / GFL_RANK_FINALISTS), N)     GFL_RANK_THREADS
 *   3      gfl_suppress_kernel  (N)                                       GFL_SUPPRESS_THREADS
 *   4      gfl_sigma_kernel     (ceil(max_detections / GFL_SIGMA_WARPS), N)  GFL_SIGMA_THREADS    only where it is asked for
 *
 *   gfl_filter_kernel(params, scores, quality or NULL, narrowed, segment_counts, bin_counts, keys)
 *   gfl_rank_kernel(params, segment_counts, bin_counts, keys, narrowed, reg_logits or NULL, boxes or NULL,
 *                   num_candidates, top_boxes, top_scores, top_classes)
 *   gfl_suppress_kernel(params, num_candidates, top_boxes, top_scores, top_classes,
 *                       num_dets, det_boxes, det_scores, det_classes)
 *   gfl_sigma_kernel(params, bin_counts, keys, reg_logits or NULL, boxes or NULL, sigmas or NULL,
 *                    num_dets, det_boxes, det_scores, det_classes, det_sigmas)
 *   gfl_resize_kernel(GflResizeParams by value, frame, uv or NULL, out)  grid (ceil(out_width / GFL_RESIZE_BLOCK_X),
 *                  ceil(out_height / GFL_RESIZE_BLOCK_Y)), block (GFL_RESIZE_BLOCK_X, GFL_RESIZE_BLOCK_Y), alone
 *
 * The second and the third may be launched with programmatic stream serialization, as they wait for the one before them; the
 * others not. Any grid x of 1 or more is right for the first. Workspace, every part 256 byte aligned, in this order; what is in there
 * before does not matter:
 *   narrowed        unsigned int        [N, L]             finalists of lists with too many keys in one bin, else 0
 *   num_candidates  unsigned int        [N]                of all lists together
 *   segment_counts  unsigned int        [N, S]             pairs above the threshold, or NaN, per segment
 *   bin_counts      unsigned int        [N, S, GFL_BINS]   of those, the ones in a bin of scores or above it
 *   top_boxes       float4              [N, L * M]         candidates, the best of all lists together, by falling key
 *   top_scores      float               [N, L * M]
 *   top_classes     int                 [N, L * M]
 *   keys            unsigned long long  [N, A * C]         a segment's keys from the place of its first pair on, the highest
 *                                                          bin first, in any order within a bin
 *                   behind them         [N, L, F]          finalists of lists with too many keys in one bin, in any order
 *
 * A key is (bits of the float32 score) << 32 | ~(anchor * C + class): scores above a threshold of 0 or more are positive,
 * so that a larger key is a higher score or, at equal scores, a lower pair; a NaN score is 0 there. Keys are unique, so every
 * result is deterministic although the order inside of `keys` is not.
 */
#ifndef GFL_KERNELS_CUH
#define GFL_KERNELS_CUH

#include "gfl_nms.cuh"
#include "gfl_rank.cuh"
#include "gfl_resize.cuh"
#include "gfl_sigma.cuh"

#endif
