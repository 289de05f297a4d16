/* The glue between TensorRT and the kernels; nothing here allocates device memory, synchronizes or ends the process. */
#include "gfl_nms_plugin.h"

#include <atomic>
#include <cstddef>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

namespace gfl_edge {

using namespace nvinfer1;

namespace {

std::atomic<ILoggerFinder *> logger_finder{nullptr};
std::atomic<ILogger *> own_logger{nullptr};

ILogger *find_logger() {
    ILoggerFinder *finder = logger_finder.load();
    ILogger *logger = finder ? finder->findLogger() : nullptr;
    return logger ? logger : own_logger.load();
}

/* Say what went wrong to TensorRT's log, or to stderr where nobody gave us one, and to the recorder if there is one. */
void report(IErrorRecorder *recorder, ErrorCode code, const char *format, va_list values) noexcept {
    char message[512] = "GflNms: ";
    const size_t used = std::strlen(message);
    std::vsnprintf(message + used, sizeof message - used, format, values);
    try {
        if (ILogger *logger = find_logger())
            logger->log(ILogger::Severity::kERROR, message);
        else
            std::fprintf(stderr, "%s\n", message);
        if (recorder) recorder->reportError(code, message);
    } catch (...) { /* the caller's error code is still returned */
    }
}

__attribute__((format(printf, 1, 2))) bool refuse(const char *format, ...) noexcept {
    va_list values;
    va_start(values, format);
    report(nullptr, ErrorCode::kINVALID_ARGUMENT, format, values);
    va_end(values);
    return false;
}

/* An attribute of one number. */
struct Attribute {
    const char *name;
    PluginFieldType type;
    size_t offset; /* in Settings */
    bool required;
};

#define GFL_ATTRIBUTE(member, type, required) \
    { #member, PluginFieldType::type, offsetof(Settings, nms) + offsetof(GflNmsParams, member), required }

constexpr Attribute kAttributes[] = {
    GFL_ATTRIBUTE(score_threshold, kFLOAT32, true),
    GFL_ATTRIBUTE(iou_threshold, kFLOAT32, true),
    GFL_ATTRIBUTE(max_candidates, kINT32, true),
    GFL_ATTRIBUTE(max_detections, kINT32, true),
    GFL_ATTRIBUTE(score_kind, kINT32, false),
    GFL_ATTRIBUTE(class_agnostic, kINT32, false),
    GFL_ATTRIBUTE(per_level, kINT32, false),
    GFL_ATTRIBUTE(input_height, kINT32, false),
    GFL_ATTRIBUTE(input_width, kINT32, false),
    GFL_ATTRIBUTE(reg_max, kINT32, false),
    GFL_ATTRIBUTE(point_offset, kFLOAT32, false),
    {"has_quality", PluginFieldType::kINT32, offsetof(Settings, has_quality), false},
    {"edge_sigma", PluginFieldType::kINT32, offsetof(Settings, edge_sigma), false},
};
constexpr int32_t kScalars = sizeof kAttributes / sizeof *kAttributes;
constexpr char kStrides[] = "strides";
static_assert(kScalars + 1 <= kMostFields, "one more for the strides");

char *member(Settings &settings, const Attribute &attribute) {
    return reinterpret_cast<char *>(&settings) + attribute.offset;
}

/* Copy `most` numbers at most; the count, or -1 after a report. */
int32_t copy_numbers(const PluginField &field, PluginFieldType type, int32_t most, void *out) noexcept {
    const bool wide = type == PluginFieldType::kINT32 && field.type == PluginFieldType::kINT64;
    if ((field.type != type && !wide) || !field.data || field.length < 0 || field.length > most) {
        refuse("attribute %s has %d values of type %d, expected 1 to %d of type %d. Export the model again", field.name,
               field.length, static_cast<int>(field.type), most, static_cast<int>(type));
        return -1;
    }
    if (!wide) std::memcpy(out, field.data, 4 * static_cast<size_t>(field.length));
    for (int32_t i = 0; wide && i < field.length; ++i)
        static_cast<int32_t *>(out)[i] = static_cast<int32_t>(static_cast<const int64_t *>(field.data)[i]);
    return field.length;
}

bool read_field(const PluginField &field, Settings &settings, bool (&found)[kScalars]) noexcept {
    if (!std::strcmp(field.name, kStrides)) {
        const int32_t count = copy_numbers(field, PluginFieldType::kINT32, GFL_MAX_LEVELS, settings.nms.strides);
        settings.nms.num_levels = count;
        return count >= 0;
    }
    for (int32_t i = 0; i < kScalars; ++i)
        if (!std::strcmp(field.name, kAttributes[i].name))
            return found[i] = copy_numbers(field, kAttributes[i].type, 1, member(settings, kAttributes[i])) == 1;
    return refuse("unknown attribute %s. Build the plugin and export the model from the same version", field.name);
}

/* Whether the kernels take these settings, whatever the tensors are; they say what is wrong. */
bool check_settings(const Settings &settings) noexcept {
    const GflNmsParams &nms = settings.nms;
    GflNmsParams smallest = nms;
    smallest.batch = smallest.num_anchors = smallest.num_classes = 1;
    smallest.per_level = 0; /* its levels are checked with the tensors' anchors */
    if (!gfl_nms_workspace_size(&smallest)) return refuse("%s", gfl_last_error());
    if (nms.per_level < 0 || nms.per_level > 1 || settings.has_quality < 0 || settings.has_quality > 1)
        return refuse("per_level is %d, has_quality %d, expected 0 or 1", nms.per_level, settings.has_quality);
    if (nms.reg_max < 0 || nms.reg_max > 32)
        return refuse("reg_max is %d, expected 1 to 32, or 0 for boxes that are decoded", nms.reg_max);
    if (settings.edge_sigma < 0 || settings.edge_sigma > 1 || (settings.edge_sigma && !nms.reg_max))
        return refuse("edge_sigma is %d with reg_max %d, expected 0, or 1 with the reg_max of distributions",
                      settings.edge_sigma, nms.reg_max);
    if ((nms.reg_max || nms.per_level) && (nms.num_levels < 1 || nms.input_height < 1 || nms.input_width < 1))
        return refuse("%d strides and an input of %d x %d pixels: expected all of them", nms.num_levels, nms.input_height,
                      nms.input_width);
    for (int32_t level = 0; level < nms.num_levels; ++level)
        if (nms.strides[level] < 1) return refuse("strides[%d] is %d, expected 1 or more", level, nms.strides[level]);
    return true;
}

/* Of all levels; 0 where the settings have none. */
int64_t anchors_of(const GflNmsParams &nms) {
    int64_t anchors = 0;
    for (int32_t level = 0; level < nms.num_levels; ++level) {
        const int64_t stride = nms.strides[level];
        anchors += ((nms.input_height + stride - 1) / stride) * ((nms.input_width + stride - 1) / stride);
    }
    return anchors;
}

bool same_anchors(const Dims &a, const Dims &b) { return a.d[0] == b.d[0] && a.d[1] == b.d[1]; }

}  // namespace

bool read_settings(const PluginFieldCollection &fields, Settings &settings) noexcept {
    bool found[kScalars] = {};
    for (int32_t i = 0; i < fields.nbFields; ++i)
        if (!read_field(fields.fields[i], settings, found)) return false;
    for (int32_t i = 0; i < kScalars; ++i)
        if (kAttributes[i].required && !found[i])
            return refuse("attribute %s is missing. Export the model again", kAttributes[i].name);
    return check_settings(settings);
}

IPluginCapability *NmsPlugin::getCapabilityInterface(PluginCapabilityType type) noexcept {
    switch (type) {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore *>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild *>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime *>(this);
    }
    return nullptr;
}

IPluginV3 *NmsPlugin::clone() noexcept {
    auto *copy = new (std::nothrow) NmsPlugin(settings_); /* its fields point into itself, so they are not copied */
    if (copy) copy->recorder_ = recorder_;
    return copy;
}

int32_t NmsPlugin::getOutputDataTypes(DataType *types, int32_t outputs, const DataType *, int32_t) const noexcept {
    if (outputs != getNbOutputs()) return failed("expected %d outputs", getNbOutputs());
    for (int32_t i = 0; i < outputs; ++i) types[i] = i == 0 || i == 3 ? DataType::kINT32 : DataType::kFLOAT;
    return 0;
}

int32_t NmsPlugin::getOutputShapes(const DimsExprs *inputs, int32_t input_count, const DimsExprs *, int32_t,
                                   DimsExprs *outputs, int32_t output_count, IExprBuilder &builder) noexcept {
    if (input_count != this->inputs() || output_count != getNbOutputs())
        return failed("expected 2 inputs, or 3 with has_quality, and 4 outputs, or 5 with edge_sigma");
    if (inputs[0].nbDims != 3 || inputs[1].nbDims != 3) return failed("expected inputs of 3 dimensions");
    const IDimensionExpr *most = builder.constant(settings_.nms.max_detections);
    for (int32_t i = 0; i < output_count; ++i) {
        outputs[i].nbDims = 2;
        outputs[i].d[0] = inputs[0].d[0];
        outputs[i].d[1] = i ? most : builder.constant(1);
        if (i != 1 && i != 4) continue; /* det_boxes and det_sigmas */
        outputs[i].nbDims = 3;
        outputs[i].d[2] = builder.constant(4);
    }
    return 0;
}

bool NmsPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc *tensors, int32_t inputs,
                                          int32_t outputs) noexcept {
    if (inputs != this->inputs() || outputs != getNbOutputs() || position >= inputs + outputs) return false;
    const DataType type = tensors[position].desc.type;
    if (tensors[position].desc.format != TensorFormat::kLINEAR) return false;
    if (position >= inputs) {
        const int32_t output = position - inputs;
        return type == (output == 0 || output == 3 ? DataType::kINT32 : DataType::kFLOAT);
    }
    if (position == scores_at()) return type == DataType::kFLOAT || type == DataType::kHALF;
    if (position == 0) return type == DataType::kFLOAT; /* boxes */
    return type == tensors[scores_at()].desc.type;      /* reg_logits, quality */
}

int32_t NmsPlugin::configurePlugin(const DynamicPluginTensorDesc *inputs, int32_t input_count,
                                   const DynamicPluginTensorDesc *outputs, int32_t output_count) noexcept {
    return getWorkspaceSize(inputs, input_count, outputs, output_count) ? 0 : -1;
}

size_t NmsPlugin::getWorkspaceSize(const DynamicPluginTensorDesc *inputs, int32_t input_count,
                                   const DynamicPluginTensorDesc *, int32_t) const noexcept {
    if (input_count != this->inputs()) {
        failed("%d inputs, expected %d", input_count, this->inputs());
        return 0;
    }
    Dims shapes[3] = {};
    for (int32_t i = 0; i < input_count; ++i) shapes[i] = inputs[i].max;
    const GflNmsParams params = params_at(shapes, inputs[scores_at()].desc.type);
    const size_t size = params.batch ? gfl_nms_workspace_size(&params) : 0;
    if (params.batch && !size) failed("%s", gfl_last_error());
    return size;
}

int32_t NmsPlugin::onShapeChange(const PluginTensorDesc *inputs, int32_t input_count, const PluginTensorDesc *,
                                 int32_t) noexcept {
    if (input_count != this->inputs()) return failed("another number of inputs than at its build");
    Dims shapes[3] = {};
    for (int32_t i = 0; i < input_count; ++i) shapes[i] = inputs[i].dims;
    return params_at(shapes, inputs[scores_at()].type).batch ? 0 : -1;
}

int32_t NmsPlugin::enqueue(const PluginTensorDesc *input_descs, const PluginTensorDesc *, const void *const *inputs,
                           void *const *outputs, void *workspace, cudaStream_t stream) noexcept {
    Dims shapes[3] = {};
    for (int32_t i = 0; i < this->inputs(); ++i) shapes[i] = input_descs[i].dims;
    const GflNmsParams params = params_at(shapes, input_descs[scores_at()].type);
    if (!params.batch) return -1;
    GflNmsInputs sources = {};
    sources.scores = inputs[scores_at()];
    sources.quality = settings_.has_quality ? inputs[2] : nullptr;
    sources.reg_logits = decodes() ? inputs[1] : nullptr;
    sources.boxes = decodes() ? nullptr : static_cast<const float *>(inputs[0]);
    const GflNmsOutputs targets = {static_cast<int32_t *>(outputs[0]), static_cast<float *>(outputs[1]),
                                   static_cast<float *>(outputs[2]), static_cast<int32_t *>(outputs[3]),
                                   settings_.edge_sigma ? static_cast<float *>(outputs[4]) : nullptr};
    const size_t size = gfl_nms_workspace_size(&params); /* no more than what was requested of TensorRT for the largest size */
    if (gfl_nms(&params, &sources, &targets, workspace, size, stream) == GFL_OK) return 0;
    return failed("%s", gfl_last_error());
}

IPluginV3 *NmsPlugin::attachToContext(IPluginResourceContext *context) noexcept {
    auto *copy = static_cast<NmsPlugin *>(clone());
    if (copy && context) copy->recorder_ = context->getErrorRecorder();
    return copy;
}

const PluginFieldCollection *NmsPlugin::getFieldsToSerialize() noexcept {
    int32_t count = 0;
    for (const Attribute &attribute : kAttributes)
        fields_[count++] = PluginField(attribute.name, member(settings_, attribute), attribute.type, 1);
    if (settings_.nms.num_levels)
        fields_[count++] =
            PluginField(kStrides, settings_.nms.strides, PluginFieldType::kINT32, settings_.nms.num_levels);
    collection_.nbFields = count;
    collection_.fields = fields_.data();
    return &collection_;
}

GflNmsParams NmsPlugin::params_at(const Dims *shapes, DataType type) const noexcept {
    const Dims &scores = shapes[scores_at()], &others = shapes[1 - scores_at()];
    GflNmsParams params = settings_.nms;
    const int64_t width = decodes() ? 4 * (params.reg_max + 1) : 4, levels = anchors_of(params);
    if (scores.nbDims != 3 || others.nbDims != 3 || others.d[2] != width || !same_anchors(scores, others)) {
        failed("inputs [%lld, %lld, %lld] and [%lld, %lld, %lld], expected [N, A, C] of scores and [N, A, %lld]",
               (long long)scores.d[0], (long long)scores.d[1], (long long)scores.d[2], (long long)others.d[0],
               (long long)others.d[1], (long long)others.d[2], (long long)width);
        return {};
    }
    if (levels && levels != scores.d[1]) {
        failed("%lld anchors, but an input of %d x %d pixels has %lld at its strides", (long long)scores.d[1],
               params.input_height, params.input_width, (long long)levels);
        return {};
    }
    const Dims &quality = shapes[2];
    if (settings_.has_quality && (quality.nbDims < 2 || quality.nbDims > 3 || !same_anchors(scores, quality) ||
                                  (quality.nbDims == 3 && quality.d[2] != 1))) {
        failed("quality is not [N, A] or [N, A, 1] with the N and A of the scores");
        return {};
    }
    params.batch = static_cast<int32_t>(scores.d[0]);
    params.num_anchors = static_cast<int32_t>(scores.d[1]);
    params.num_classes = static_cast<int32_t>(scores.d[2]);
    params.dtype = type == DataType::kHALF ? GFL_FLOAT16 : GFL_FLOAT32;
    return params;
}

int32_t NmsPlugin::failed(const char *format, ...) const noexcept {
    va_list values;
    va_start(values, format);
    report(recorder_, ErrorCode::kINVALID_ARGUMENT, format, values);
    va_end(values);
    return -1;
}

NmsCreator::NmsCreator() noexcept {
    int32_t count = 0;
    for (const Attribute &attribute : kAttributes)
        fields_[count++] = PluginField(attribute.name, nullptr, attribute.type, 1);
    fields_[count++] = PluginField(kStrides, nullptr, PluginFieldType::kINT32, GFL_MAX_LEVELS);
    collection_.nbFields = count;
    collection_.fields = fields_.data();
}

IPluginV3 *NmsCreator::createPlugin(const char *, const PluginFieldCollection *fields, TensorRTPhase) noexcept {
    Settings settings;
    if (!fields || !read_settings(*fields, settings)) return nullptr;
    return new (std::nothrow) NmsPlugin(settings);
}

namespace {

NmsCreator &creator() {
    static NmsCreator instance;
    return instance;
}

#ifdef GFL_EDGE_REGISTER_AT_LOAD
[[maybe_unused]] const bool registered_at_load = initGflEdgePlugins(getPluginRegistry(), nullptr);
#endif

}  // namespace

}  // namespace gfl_edge

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count) {
    static nvinfer1::IPluginCreatorInterface *const creators[] = {&gfl_edge::creator()};
    count = 1;
    return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder *finder) {
    gfl_edge::logger_finder = finder;
}

extern "C" __attribute__((visibility("default"))) bool initGflEdgePlugins(nvinfer1::IPluginRegistry *registry,
                                                                          nvinfer1::ILogger *logger) {
    using namespace gfl_edge;
    if (logger) own_logger = logger;
    if (!registry) return refuse("initGflEdgePlugins got no registry: pass getPluginRegistry()");
    int32_t count = 0;
    nvinfer1::IPluginCreatorInterface *const *creators = registry->getAllCreators(&count);
    for (int32_t i = 0; i < count; ++i)
        if (creators[i] == &creator()) return true;
    nvinfer1::IPluginCreatorInterface &ours = creator();
    return registry->registerCreator(ours, kPluginNamespace);
}
