/* Resize: a frame into a slot of the network's input. */
#ifndef GFL_RESIZE_CUH
#define GFL_RESIZE_CUH

#include "gfl_common.cuh"

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

/* Where a column or a row of pixels reads: two neighbors, and the weight of each. */
struct GflTaps {
    int first, second;
    int weights[2]; /* 32nds with a black border, else 2048ths */
};

/* As cv2.warpAffine up to OpenCV 4 has it: 1024ths rounded to 1/32 pixel. Far outside is as good as just outside. */
__device__ inline GflTaps gfl_taps_of_32(int place, double step, double start, int frame_size) {
    const double fine = rint(__dmul_rn(__dmul_rn((double)place, step), 1024.0)) + rint(__dmul_rn(start, 1024.0));
    const int fixed = ((int)fmin(fmax(fine, -2048.0), 1024.0 * (frame_size + 2)) + 16) >> 5;
    return {fixed >> 5, (fixed >> 5) + 1, {32 - (fixed & 31), fixed & 31}};
}

/* As cv2.resize with INTER_LINEAR has it: a float coordinate. Columns outside of the frame have the weight of its edge, rows
 * there keep their own, which may sum to 2047 or 2049. */
__device__ inline GflTaps gfl_taps_of_2048(int place, double step, double start, int frame_size, bool is_column) {
    const double exact = __dadd_rn(__dmul_rn((double)place + 0.5, step), start);
    const float coordinate = (float)fmin(fmax(exact, -2.0), (double)frame_size + 2.0);
    int whole = (int)floorf(coordinate);
    float fraction = __fsub_rn(coordinate, (float)whole);
    if (is_column && (whole < 0 || whole >= frame_size - 1)) {
        whole = whole < 0 ? 0 : frame_size - 1;
        fraction = 0.0f;
    }
    return {gfl_clamp(whole, frame_size - 1), gfl_clamp(whole + 1, frame_size - 1),
            {(int)rintf(__fmul_rn(1.0f - fraction, 2048.0f)), (int)rintf(__fmul_rn(fraction, 2048.0f))}};
}

__device__ inline uint8_t gfl_blend(const int (&corner)[4], const int (&along)[2], const int (&down)[2], bool of_32) {
    const int upper = corner[0] * along[0] + corner[1] * along[1], lower = corner[2] * along[0] + corner[3] * along[1];
    if (of_32) return (uint8_t)((upper * down[0] + lower * down[1] + 512) >> 10);
    return (uint8_t)gfl_clamp(((down[0] * (upper >> 4) >> 16) + (down[1] * (lower >> 4) >> 16) + 2) >> 2, 255);
}

/* One thread per pixel of `out`, uint8 [out_height, out_width, 3]. The first ones find where the block's columns and rows
 * read, in doubles, of which some GPUs do few. */
extern "C" __global__ void __launch_bounds__(GFL_RESIZE_BLOCK_X *GFL_RESIZE_BLOCK_Y)
    gfl_resize_kernel(const __grid_constant__ GflResizeParams params, const uint8_t *__restrict__ frame,
                      const uint8_t *__restrict__ uv, uint8_t *__restrict__ out) {
    __shared__ GflTaps taps[GFL_RESIZE_BLOCK_X + GFL_RESIZE_BLOCK_Y];
    const int thread = threadIdx.y * GFL_RESIZE_BLOCK_X + threadIdx.x;
    if (thread < GFL_RESIZE_BLOCK_X + GFL_RESIZE_BLOCK_Y) {
        const bool is_column = thread < GFL_RESIZE_BLOCK_X;
        const int place = is_column ? blockIdx.x * GFL_RESIZE_BLOCK_X + thread
                                    : blockIdx.y * GFL_RESIZE_BLOCK_Y + thread - GFL_RESIZE_BLOCK_X;
        const double step = is_column ? params.step_x : params.step_y, start = is_column ? params.start_x : params.start_y;
        const int size = is_column ? params.frame_width : params.frame_height;
        taps[thread] = params.black_border ? gfl_taps_of_32(place, step, start, size)
                                           : gfl_taps_of_2048(place, step, start, size, is_column);
    }
    __syncthreads();
    const int x = blockIdx.x * GFL_RESIZE_BLOCK_X + threadIdx.x;
    const int y = blockIdx.y * GFL_RESIZE_BLOCK_Y + threadIdx.y;
    if (x >= params.out_width || y >= params.out_height) return;
    uint8_t *pixel = out + ((size_t)y * params.out_width + x) * 3;
    if (x >= params.content_width || y >= params.content_height) {
        for (int c = 0; c < 3; ++c) pixel[c] = params.padding_bgr[c];
        return;
    }
    const GflTaps along = taps[threadIdx.x], down = taps[GFL_RESIZE_BLOCK_X + threadIdx.y];
    int corners[4][3];
    for (int i = 0; i < 4; ++i)
        gfl_frame_pixel(params, frame, uv, i % 2 ? along.second : along.first, i / 2 ? down.second : down.first, corners[i]);
    for (int c = 0; c < 3; ++c) {
        const int corner[4] = {corners[0][c], corners[1][c], corners[2][c], corners[3][c]};
        pixel[c] = gfl_blend(corner, along.weights, down.weights, params.black_border);
    }
}

#endif
