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

/* value * place in 1024ths, rounded, a half to the even one: exact, as the product has 24 + 16 bits. From 2^36 on, which is
 * outside of every frame, it grows no further. */
__device__ inline long long gfl_1024ths(float value, int place) {
    const unsigned bits = __float_as_uint(value), exponent = bits >> 23 & 255;
    const unsigned mantissa = (bits & 0x7fffff) | (exponent ? 1u << 23 : 0u);
    const unsigned long long product = (unsigned long long)mantissa * (unsigned)place;
    const int shift = 140 - (exponent ? (int)exponent : 1); /* 1024 * value is mantissa / 2^shift */
    unsigned long long whole = 0;
    if (shift <= 0)
        whole = product << (shift > -22 ? -shift : 22);
    else if (shift <= 40)
        whole = (product + (1ull << (shift - 1)) - 1 + (product >> shift & 1)) >> shift;
    return bits >> 31 ? -(long long)whole : (long long)whole;
}

/* The frame coordinate of a pixel: whole part and fraction. With a black border as cv2.warpAffine has it, whose coordinates
 * are 1/1024ths rounded to 1/32 pixel, which matters by up to 8 gray levels; in integers, as 1/1024 of a pixel at 4096 is at
 * the end of what float32 holds. Far outside, where nothing is to be seen, is as good as just outside. */
__device__ inline int gfl_coordinate(const GflResizeParams &params, int place, float step, float start, int frame_size,
                                     float *fraction) {
    if (params.black_border) {
        const long long fine = gfl_1024ths(step, place) + gfl_1024ths(start, 1), highest = 1024ll * (frame_size + 2);
        const int limited = (int)(fine < -2048 ? -2048 : fine > highest ? highest : fine);
        const int fixed = (limited + 16) >> 5;
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
