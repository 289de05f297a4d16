/* The C interface around the kernels: checks, workspace, launches. */
#include <cuda_runtime.h>

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "gfl_kernels.cuh"

namespace {

constexpr int64_t kMostPairs = 0x7fffffff; /* of an image; a key has 32 bits for them */
constexpr int kMostImages = 65535;         /* the grid's y */
constexpr int kMostPixels = 65535;         /* of a side */

thread_local char last_error[512] = "";

GflStatus fail(GflStatus status, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(last_error, sizeof last_error, format, values);
    va_end(values);
    return status;
}

GflStatus succeed() {
    last_error[0] = '\0';
    return GFL_OK;
}

#define GFL_REQUIRE(condition, ...) \
    if (!(condition)) return fail(GFL_INVALID_ARGUMENT, __VA_ARGS__)
#define GFL_TRY(expression) \
    if (const GflStatus status = (expression)) return status

GflStatus check_range(const char *name, int64_t value, int64_t low, int64_t high) {
    GFL_REQUIRE(low <= value && value <= high, "%s is %lld, expected %lld..%lld", name, (long long)value, (long long)low,
                (long long)high);
    return GFL_OK;
}

GflStatus check_fraction(const char *name, float value) {
    GFL_REQUIRE(value >= 0 && value <= 1, "%s is %g, expected 0..1", name, value);
    return GFL_OK;
}

GflStatus check_finite(const char *name, double value) {
    GFL_REQUIRE(isfinite(value), "%s is %g, expected a finite number", name, value);
    return GFL_OK;
}

GflStatus check_pointer(const char *name, const void *pointer, size_t alignment = 16) {
    GFL_REQUIRE(pointer, "%s is NULL, expected device memory", name);
    GFL_REQUIRE((size_t)pointer % alignment == 0,
                "%s is at %p, expected a multiple of %zu bytes: pass memory as cudaMalloc gives it", name, pointer,
                alignment);
    return GFL_OK;
}

/* Levels are needed to decode and to take candidates level by level. */
GflStatus check_levels(const GflNmsParams &params) {
    GFL_TRY(check_range("num_levels", params.num_levels, 1, GFL_MAX_LEVELS));
    GFL_TRY(check_range("input_height", params.input_height, 1, kMostPixels));
    GFL_TRY(check_range("input_width", params.input_width, 1, kMostPixels));
    int64_t anchors = 0;
    for (int level = 0; level < params.num_levels; ++level) {
        const int64_t stride = params.strides[level];
        GFL_REQUIRE(stride >= 1 && stride <= kMostPixels, "strides[%d] is %lld, expected 1..%d", level, (long long)stride,
                    kMostPixels);
        anchors += ((params.input_height + stride - 1) / stride) * ((params.input_width + stride - 1) / stride);
    }
    GFL_REQUIRE(anchors == params.num_anchors,
                "num_anchors is %d, but an input of %d x %d pixels has %lld anchors at the %d strides given: pass the input "
                "size and strides that the network was exported with",
                params.num_anchors, params.input_height, params.input_width, (long long)anchors, params.num_levels);
    return GFL_OK;
}

GflStatus check_params(const GflNmsParams *params) {
    GFL_REQUIRE(params, "params is NULL");
    GFL_TRY(check_range("batch", params->batch, 1, kMostImages));
    GFL_TRY(check_range("num_anchors", params->num_anchors, 1, kMostPairs));
    GFL_TRY(check_range("num_classes", params->num_classes, 1, kMostPairs));
    GFL_TRY(check_range("num_anchors * num_classes", (int64_t)params->num_anchors * params->num_classes, 1, kMostPairs));
    GFL_TRY(check_range("dtype", params->dtype, GFL_FLOAT32, GFL_FLOAT16));
    GFL_TRY(check_range("score_kind", params->score_kind, GFL_SCORES, GFL_LOGITS));
    GFL_TRY(check_range("class_agnostic", params->class_agnostic, 0, 1));
    GFL_TRY(check_range("per_level", params->per_level, 0, 1));
    GFL_TRY(check_range("max_candidates", params->max_candidates, 1, GFL_MAX_CANDIDATES));
    GFL_TRY(check_range("max_detections", params->max_detections, 1, GFL_MAX_CANDIDATES));
    GFL_TRY(check_fraction("score_threshold", params->score_threshold));
    GFL_TRY(check_fraction("iou_threshold", params->iou_threshold));
    return params->per_level ? check_levels(*params) : GFL_OK;
}

GflStatus check_inputs(const GflNmsParams &params, const GflNmsInputs *inputs) {
    GFL_REQUIRE(inputs, "inputs is NULL");
    GFL_TRY(check_pointer("inputs.scores", inputs->scores));
    if (inputs->quality) GFL_TRY(check_pointer("inputs.quality", inputs->quality));
    GFL_REQUIRE(!inputs->reg_logits != !inputs->boxes, "%s of reg_logits and boxes is given: pass exactly one of them",
                inputs->boxes ? "each" : "none");
    if (inputs->boxes) return check_pointer("inputs.boxes", inputs->boxes);
    GFL_TRY(check_pointer("inputs.reg_logits", inputs->reg_logits));
    GFL_TRY(check_range("reg_max", params.reg_max, 1, 32));
    GFL_TRY(check_finite("point_offset", params.point_offset));
    return check_levels(params);
}

GflStatus check_outputs(const GflNmsOutputs *outputs) {
    GFL_REQUIRE(outputs, "outputs is NULL");
    GFL_TRY(check_pointer("outputs.num_dets", outputs->num_dets));
    GFL_TRY(check_pointer("outputs.det_boxes", outputs->det_boxes));
    GFL_TRY(check_pointer("outputs.det_scores", outputs->det_scores));
    return check_pointer("outputs.det_classes", outputs->det_classes);
}

GflStatus check_sigmas(const GflNmsInputs &inputs, const GflNmsOutputs &outputs) {
    if (outputs.det_sigmas) GFL_TRY(check_pointer("outputs.det_sigmas", outputs.det_sigmas));
    const bool taken = outputs.det_sigmas && inputs.boxes;
    GFL_REQUIRE(!inputs.sigmas != taken, "inputs.sigmas is %s: pass them exactly with boxes and outputs.det_sigmas",
                inputs.sigmas ? "given" : "NULL");
    return inputs.sigmas ? check_pointer("inputs.sigmas", inputs.sigmas) : GFL_OK;
}

GflStatus check_side(const char *name, int64_t value) { return check_range(name, value, 1, kMostPixels); }

GflStatus check_frame(const GflResizeParams &params, const void *frame, const void *uv) {
    const bool nv12 = params.format == GFL_NV12;
    GFL_TRY(check_pointer("frame", frame, 1));
    GFL_TRY(check_range("format", params.format, GFL_BGR, GFL_NV12));
    GFL_TRY(check_side("frame_height", params.frame_height));
    GFL_TRY(check_side("frame_width", params.frame_width));
    GFL_TRY(check_range("pitch", params.pitch, (nv12 ? 1 : 3) * (int64_t)params.frame_width, kMostPairs));
    if (!nv12) {
        GFL_REQUIRE(!uv, "uv is given for a packed format: pass NULL, or GFL_NV12 as the format");
        return GFL_OK;
    }
    GFL_TRY(check_pointer("uv", uv, 1));
    GFL_TRY(check_range("uv_pitch", params.uv_pitch, params.frame_width, kMostPairs));
    GFL_REQUIRE(params.frame_height % 2 == 0 && params.frame_width % 2 == 0,
                "an NV12 frame is %d x %d pixels, expected even sides: crop the last row or column", params.frame_height,
                params.frame_width);
    return GFL_OK;
}

GflStatus check_resize(const GflResizeParams *params, const void *frame, const void *uv, const uint8_t *out) {
    GFL_REQUIRE(params, "params is NULL");
    GFL_TRY(check_frame(*params, frame, uv));
    GFL_TRY(check_pointer("out", out, 1));
    GFL_TRY(check_side("out_height", params->out_height));
    GFL_TRY(check_side("out_width", params->out_width));
    GFL_TRY(check_range("content_height", params->content_height, 0, params->out_height));
    GFL_TRY(check_range("content_width", params->content_width, 0, params->out_width));
    GFL_TRY(check_range("black_border", params->black_border, 0, 1));
    GFL_TRY(check_finite("step_x", params->step_x));
    GFL_TRY(check_finite("step_y", params->step_y));
    GFL_TRY(check_finite("start_x", params->start_x));
    return check_finite("start_y", params->start_y);
}

constexpr size_t kAlignment = 256;

size_t align(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

/* Byte offsets, see the launch plan in gfl_kernels.cuh. */
struct Workspace {
    size_t narrowed, num_candidates, segment_counts, bin_counts, top_boxes, top_scores, top_classes, keys, size;
};

Workspace plan_workspace(const GflNmsParams &params) {
    const size_t images = params.batch, lists = images * gfl_num_lists(params), segments = images * gfl_max_segments(params);
    const size_t candidates = lists * params.max_candidates;
    size_t end = 0;
    const auto part = [&end](size_t size) {
        const size_t begin = end;
        end += align(size);
        return begin;
    };
    Workspace plan;
    plan.narrowed = part(lists * sizeof(unsigned));
    plan.num_candidates = part(images * sizeof(unsigned));
    plan.segment_counts = part(segments * sizeof(unsigned));
    plan.bin_counts = part(segments * GFL_BINS * sizeof(unsigned));
    plan.top_boxes = part(candidates * sizeof(float4));
    plan.top_scores = part(candidates * sizeof(float));
    plan.top_classes = part(candidates * sizeof(int));
    plan.keys = part((images * gfl_num_pairs(params) + lists * gfl_max_finalists(params)) * sizeof(GflKey));
    plan.size = end + kAlignment; /* it may begin anywhere */
    return plan;
}

GflStatus check_cuda(const char *what, cudaError_t error) {
    if (error == cudaSuccess) return GFL_OK;
    const char *help = error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction
                           ? ": this library was built for other GPUs; build it with nvcc -arch=native on this machine"
                           : "";
    return fail(GFL_CUDA_ERROR, "%s failed: %s%s", what, cudaGetErrorString(error), help);
}

template <typename Kernel>
GflStatus launch(const char *name, Kernel *kernel, dim3 grid, dim3 block, void **arguments, void *stream) {
    return check_cuda(name, cudaLaunchKernel((const void *)kernel, grid, block, arguments, 0,
                                             static_cast<cudaStream_t>(stream)));
}

#if CUDART_VERSION >= 12030
/* Whether kernels can begin while the one before them runs, also when they are captured. */
bool can_overlap() {
    int device = 0, major = 0, version = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9 &&
           cudaDriverGetVersion(&version) == cudaSuccess && version >= 12030;
}

/* As launch(), of a kernel that waits by itself for the one before it. */
template <typename Kernel>
GflStatus launch_overlapping(const char *name, Kernel *kernel, dim3 grid, dim3 block, void **arguments, void *stream) {
    if (!can_overlap()) return launch(name, kernel, grid, block, arguments, stream);
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = static_cast<cudaStream_t>(stream);
    config.attrs = &attribute;
    config.numAttrs = 1;
    return check_cuda(name, cudaLaunchKernelExC(&config, (const void *)kernel, arguments));
}
#else
template <typename Kernel>
GflStatus launch_overlapping(const char *name, Kernel *kernel, dim3 grid, dim3 block, void **arguments, void *stream) {
    return launch(name, kernel, grid, block, arguments, stream);
}
#endif

unsigned divide_up(size_t value, size_t step) { return (unsigned)((value + step - 1) / step); }

GflStatus queue_nms(GflNmsParams params, GflNmsInputs inputs, GflNmsOutputs outputs, char *workspace, void *stream) {
    const Workspace plan = plan_workspace(params);
    const unsigned lists = gfl_num_lists(params), images = params.batch, segments = gfl_max_segments(params);
    void *narrowed = workspace + plan.narrowed, *num_candidates = workspace + plan.num_candidates;
    void *segment_counts = workspace + plan.segment_counts, *bin_counts = workspace + plan.bin_counts;
    void *top_boxes = workspace + plan.top_boxes, *top_scores = workspace + plan.top_scores;
    void *top_classes = workspace + plan.top_classes, *keys = workspace + plan.keys;

    void *filter[] = {&params, &inputs.scores, &inputs.quality, &narrowed, &segment_counts, &bin_counts, &keys};
    GFL_TRY(launch("gfl_filter_kernel", gfl_filter_kernel, dim3(segments, images), dim3(GFL_FILTER_THREADS), filter, stream));
    void *rank[] = {&params,           &segment_counts, &bin_counts,     &keys,      &narrowed,  &inputs.reg_logits,
                    &inputs.boxes, &num_candidates, &top_boxes, &top_scores, &top_classes};
    const unsigned ranks = divide_up((size_t)lists * gfl_max_finalists(params), GFL_RANK_FINALISTS);
    GFL_TRY(launch_overlapping("gfl_rank_kernel", gfl_rank_kernel, dim3(ranks, images), dim3(GFL_RANK_THREADS), rank,
                               stream));
    void *suppress[] = {&params,           &num_candidates,    &top_boxes,          &top_scores,         &top_classes,
                        &outputs.num_dets, &outputs.det_boxes, &outputs.det_scores, &outputs.det_classes};
    GFL_TRY(launch_overlapping("gfl_suppress_kernel", gfl_suppress_kernel, dim3(images), dim3(GFL_SUPPRESS_THREADS), suppress,
                               stream));
    if (!outputs.det_sigmas) return GFL_OK;
    void *sigma[] = {&params,           &bin_counts,        &keys,               &inputs.reg_logits,   &inputs.boxes,
                     &inputs.sigmas,    &outputs.num_dets,  &outputs.det_boxes,  &outputs.det_scores,  &outputs.det_classes,
                     &outputs.det_sigmas};
    const dim3 blocks(divide_up(params.max_detections, GFL_SIGMA_WARPS), images);
    return launch("gfl_sigma_kernel", gfl_sigma_kernel, blocks, dim3(GFL_SIGMA_THREADS), sigma, stream);
}

}  // namespace

extern "C" size_t gfl_nms_workspace_size(const GflNmsParams *params) {
    if (check_params(params)) return 0;
    succeed();
    return plan_workspace(*params).size;
}

extern "C" GflStatus gfl_nms(const GflNmsParams *params, const GflNmsInputs *inputs, const GflNmsOutputs *outputs,
                             void *workspace, size_t workspace_size, void *stream) {
    GFL_TRY(check_params(params));
    GFL_TRY(check_inputs(*params, inputs));
    GFL_TRY(check_outputs(outputs));
    GFL_TRY(check_sigmas(*inputs, *outputs));
    GFL_TRY(check_pointer("workspace", workspace, 1));
    const size_t needed = plan_workspace(*params).size;
    GFL_REQUIRE(workspace_size >= needed,
                "workspace_size is %zu, expected %zu bytes or more: ask gfl_nms_workspace_size with the same parameters",
                workspace_size, needed);
    char *aligned = static_cast<char *>(workspace) + (kAlignment - (size_t)workspace % kAlignment) % kAlignment;
    GFL_TRY(queue_nms(*params, *inputs, *outputs, aligned, stream));
    return succeed();
}

extern "C" GflStatus gfl_resize(const GflResizeParams *params, const void *frame, const void *uv, uint8_t *out,
                                void *stream) {
    GFL_TRY(check_resize(params, frame, uv, out));
    GflResizeParams by_value = *params;
    void *arguments[] = {&by_value, &frame, &uv, &out};
    const dim3 grid(divide_up(params->out_width, GFL_RESIZE_BLOCK_X), divide_up(params->out_height, GFL_RESIZE_BLOCK_Y));
    GFL_TRY(launch("gfl_resize_kernel", gfl_resize_kernel, grid, dim3(GFL_RESIZE_BLOCK_X, GFL_RESIZE_BLOCK_Y), arguments,
                   stream));
    return succeed();
}

extern "C" const char *gfl_last_error(void) { return last_error; }
