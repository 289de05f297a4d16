/* The kernels around the network: candidates, integral decode, NMS and pre-processing, with a plain C interface.
 *
 * Everything is queued on the caller's stream: no synchronization, no allocation, outputs of fixed shape, so that calls can
 * be captured into a CUDA graph. Pointers are device memory, 16 byte aligned, unless said otherwise; tensors are dense and
 * row-major. Functions return GFL_OK or another status, whose message gfl_last_error() has, and never end the process.
 */
#ifndef GFL_KERNELS_H
#define GFL_KERNELS_H

#ifdef __CUDACC_RTC__ /* NVRTC has no standard headers; size_t is built in */
typedef int int32_t;
typedef unsigned char uint8_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

#define GFL_KERNELS_VERSION 1
#define GFL_MAX_LEVELS 8
#define GFL_INVALID_CLASS (-2)
#define GFL_MAX_COORDINATE 1048576.0f /* pixels; beyond, boxes are no boxes: areas would lose their digits */
#define GFL_MAX_CANDIDATES 4096 /* per list, see GflNmsParams.max_candidates */

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { GFL_OK = 0, GFL_INVALID_ARGUMENT = 1, GFL_CUDA_ERROR = 2 } GflStatus;

typedef enum { GFL_FLOAT32 = 0, GFL_FLOAT16 = 1 } GflDtype;

/* What GflNmsInputs.scores holds. */
typedef enum {
    GFL_SCORES = 0, /* 0..1 */
    GFL_LOGITS = 1, /* before the sigmoid */
} GflScoreKind;

/* Post-processing of one model at one input size. A = anchors, C = classes, N = batch. All fields are 4 bytes wide. */
typedef struct {
    int32_t batch;          /* N, 1 or more */
    int32_t num_anchors;    /* A, of all levels together */
    int32_t num_classes;    /* C */
    int32_t dtype;          /* GflDtype of scores, quality and reg_logits; boxes are always float32 */
    int32_t score_kind;     /* GflScoreKind */
    int32_t class_agnostic; /* 1: boxes suppress each other whatever their classes */
    int32_t per_level;      /* 1: max_candidates of each level enter NMS, as in the paper; 0: of all levels together */
    int32_t max_candidates; /* (anchor, class) pairs that enter NMS, 1..GFL_MAX_CANDIDATES, by falling score */
    int32_t max_detections; /* K, 1..GFL_MAX_CANDIDATES */
    float score_threshold;  /* strictly above, 0..1 */
    float iou_threshold;    /* suppressed strictly above, 0..1 */
    int32_t input_height;   /* pixels; boxes that are decoded here are clipped to the input */
    int32_t input_width;
    int32_t reg_max;        /* an edge's distribution has reg_max + 1 bins, 1..32; only with reg_logits */
    float point_offset;     /* cell i of a level lies at (i + point_offset) * stride */
    int32_t num_levels;     /* 1..GFL_MAX_LEVELS; only with reg_logits or per_level */
    int32_t strides[GFL_MAX_LEVELS]; /* pixels; level l has ceil(height / stride) * ceil(width / stride) anchors */
} GflNmsParams;

/* Either reg_logits or boxes is given, the other is NULL. */
typedef struct {
    const void *scores;     /* [N, A, C] */
    const void *quality;    /* [N, A] 0..1, a factor of every score of an anchor (GFLv2), or NULL */
    const void *reg_logits; /* [N, A, 4 * (reg_max + 1)] distributions of left, top, right, bottom before the softmax */
    const float *boxes;     /* [N, A, 4] xyxy in pixels of the input */
    const float *sigmas;    /* [N, A, 4] of the edges of boxes, in pixels of the input; NULL without outputs.det_sigmas */
} GflNmsInputs;

/* Padded with score 0, class -1 and empty boxes. As many of the rows after the detections as candidates were left out have
 * class GFL_INVALID_CLASS instead, as far as there are rows: those with NaN or infinity, a score outside 0..1, a box inside
 * out or beyond GFL_MAX_COORDINATE pixels. They suppress nothing; a NaN score counts as 0 and comes after all others. */
typedef struct {
    int32_t *num_dets;    /* [N, 1] */
    float *det_boxes;     /* [N, K, 4] xyxy in pixels of the input */
    float *det_scores;    /* [N, K], falling; equal scores by lower anchor * C + class */
    int32_t *det_classes; /* [N, K] */
    /* [N, K, 4] standard deviations of left, top, right, bottom in pixels of the input, of the distributions or as given,
     * padded with 0; NULL where nobody asks for them */
    float *det_sigmas;
} GflNmsOutputs;

#ifndef __CUDACC_RTC__
/* Bytes of device memory that gfl_nms needs for its own use, which may begin anywhere; 0 for impossible parameters. Never
 * fewer for a larger batch or more anchors. */
size_t gfl_nms_workspace_size(const GflNmsParams *params);

/* Queue filter, top-k, integral decode of the survivors and NMS. NaN scores count as 0. `stream` is a cudaStream_t. */
GflStatus gfl_nms(const GflNmsParams *params, const GflNmsInputs *inputs, const GflNmsOutputs *outputs, void *workspace,
                  size_t workspace_size, void *stream);
#endif

typedef enum { GFL_BGR = 0, GFL_RGB = 1, GFL_NV12 = 2 } GflPixelFormat;

/* One frame's way into one slot of the network's input. The pixel (x, y) of the output inside of `content_*` is the
 * bilinear value at ((x + c) * step_x + start_x, (y + c) * step_y + start_y) of the frame, where c is 0 with a black border
 * and 0.5 without; the rest is `padding_bgr`. */
typedef struct {
    double step_x, step_y;   /* frame pixels per slot pixel */
    double start_x, start_y; /* the frame's pixel centers are whole numbers; cv2.resize has -0.5 */
    int32_t format; /* GflPixelFormat */
    int32_t frame_height, frame_width; /* pixels; both even for NV12 */
    int32_t pitch;    /* bytes from one row of the frame to the next */
    int32_t uv_pitch; /* the same for the interleaved UV plane of NV12 */
    int32_t out_height, out_width; /* pixels of the slot */
    int32_t content_height, content_width; /* pixels of the slot, from its upper left corner, that show the frame */
    int32_t black_border;   /* 0: the frame's edge pixels go on outside of it; 1: black outside (cv2.BORDER_CONSTANT) */
    uint8_t padding_bgr[4]; /* the last is unused */
} GflResizeParams;

#ifndef __CUDACC_RTC__
/* Queue a resize of `frame` (packed BGR or RGB, or the Y plane with `uv` for NV12, else NULL) into `out`, uint8
 * [out_height, out_width, 3] BGR, dense. The bytes of cv2.resize with INTER_LINEAR; with black_border those of
 * cv2.warpAffine up to OpenCV 4. Builds of OpenCV with another HAL, such as for ARM, may round otherwise by a gray level. */
GflStatus gfl_resize(const GflResizeParams *params, const void *frame, const void *uv, uint8_t *out, void *stream);

/* Why the last call on this thread failed; empty after a call that succeeded. Host memory, valid until the next call. */
const char *gfl_last_error(void);
#endif

#ifdef __cplusplus
}
#endif
#endif
