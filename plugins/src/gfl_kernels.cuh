/* The device code: filter, gather, rank, mask, suppress; resize. Compiles with nvcc, with NVRTC (no header but gfl_kernels.h
 * and those beside this one) and, under plugins/emulation, with a host compiler.
 *
 * Launch plan
 *
 * Names: N batch, A anchors, C classes, M max_candidates; L lists of candidates per image: num_levels if per_level, else 1.
 * T = A * C / GFL_FILTER_TILE + 2 L tiles of an image at most, rounded down. S segments of an image at most: T, or, if that is
 * above GFL_SEGMENTS, max(GFL_SEGMENTS, ceil(T / GFL_SEGMENT_TILES)) + L. F = M + GFL_SPARE_FINALISTS finalists of a list.
 * W = min(L * M, GFL_MASK_CANDIDATES), rounded up to whole words of 32, candidates in the mask.
 * Kernels are extern "C"; `params` is a GflNmsParams by value (96 bytes), the rest are pointers to device memory. There is no
 * dynamic shared memory.
 *
 *   order  kernel               grid (x, y, z)                                          block
 *   1      gfl_filter_kernel    (S, N)                                                  GFL_FILTER_THREADS
 *   2      gfl_gather_kernel    (min(S, GFL_GATHER_BLOCKS), N)                          GFL_GATHER_THREADS
 *   3      gfl_rank_kernel      (L * ceil(F / (GFL_RANK_THREADS / GFL_RANK_GROUP)), N)  GFL_RANK_THREADS
 *   4      gfl_mask_kernel      (W / 32, W / 32, N)                                     GFL_MASK_THREADS
 *   5      gfl_suppress_kernel  (N)                                                     GFL_SUPPRESS_THREADS
 *
 *   gfl_filter_kernel(params, scores, quality or NULL, counts, segment_counts, histograms, keys)
 *   gfl_gather_kernel(params, segment_counts, histograms, keys, counts, left_counts, finalists)
 *   gfl_rank_kernel(params, counts, finalists, reg_logits or NULL, boxes or NULL, top_boxes, top_scores, top_classes)
 *   gfl_mask_kernel(params, counts, top_boxes, top_classes, mask)
 *   gfl_suppress_kernel(params, counts, mask, top_boxes, top_scores, top_classes,
 *                       num_dets, det_boxes, det_scores, det_classes)
 *   gfl_resize_kernel(GflResizeParams by value, frame, uv or NULL, out)  grid (ceil(out_width / GFL_RESIZE_BLOCK_X),
 *                  ceil(out_height / GFL_RESIZE_BLOCK_Y)), block (GFL_RESIZE_BLOCK_X, GFL_RESIZE_BLOCK_Y), alone
 *
 * Any grid x of 1 or more is right for the first two. Workspace, every part 256 byte aligned, in this order; what is in there
 * before does not matter:
 *   counts          unsigned int        [N, L + 1]         finalists of each list and, last, blocks that have gathered
 *   segment_counts  unsigned int        [N, S]             pairs above the threshold, or NaN, per segment
 *   left_counts     unsigned int        [N, S]             of those, the finalists
 *   histograms      unsigned short      [N, S, GFL_BINS]   pairs per segment by score
 *   finalists       unsigned long long  [N, L, F]          keys that may be among the best M of their list, in any order
 *   top_boxes       float4              [N, L * M]         candidates, the best of all lists together, by falling key
 *   top_scores      float               [N, L * M]
 *   top_classes     int                 [N, L * M]
 *   mask            unsigned int        [N, W / 32, W]     which of them suppress which
 *   keys            unsigned long long  [N, A * C]         a segment's keys, in any order, from the place of its first pair on
 *
 * A key is (bits of the float32 score) << 32 | ~(anchor * C + class): scores above a threshold of 0 or more are positive,
 * so that a larger key is a higher score or, at equal scores, a lower pair; a NaN score is 0 there. Keys are unique, so every
 * result is deterministic although the order inside of `keys` and `finalists` is not.
 */
#ifndef GFL_KERNELS_CUH
#define GFL_KERNELS_CUH

#include "gfl_candidates.cuh"
#include "gfl_nms.cuh"
#include "gfl_resize.cuh"

#endif
