/* TensorRT's plugin GflNms, version 1, namespace gfl_edge: the kernels of gfl_kernels.h as a layer (IPluginV3).
 *
 * Inputs: cls_logits and reg_logits where reg_max > 0, else boxes and scores; then quality where has_quality is 1.
 * Outputs: num_dets, det_boxes, det_scores, det_classes; then det_sigmas where edge_sigma is 1. README.md has the tables of tensors and attributes.
 */
#ifndef GFL_NMS_PLUGIN_H
#define GFL_NMS_PLUGIN_H

#include <NvInfer.h>

#include <array>

#include "gfl_kernels.h"

namespace gfl_edge {

constexpr char kPluginName[] = "GflNms";
constexpr char kPluginVersion[] = "1";
constexpr char kPluginNamespace[] = "gfl_edge";
constexpr int32_t kMostFields = 16;

/* What the attributes say; batch, num_anchors, num_classes and dtype of `nms` come from the tensors. */
struct Settings {
    GflNmsParams nms{};
    int32_t has_quality = 0;
    int32_t edge_sigma = 0;
};

/* Read from attributes and from engines; members it does not find keep their defaults. Reports what is wrong. */
bool read_settings(const nvinfer1::PluginFieldCollection &fields, Settings &settings) noexcept;

class NmsPlugin final : public nvinfer1::IPluginV3,
                        public nvinfer1::IPluginV3OneCore,
                        public nvinfer1::IPluginV3OneBuild,
                        public nvinfer1::IPluginV3OneRuntime {
   public:
    explicit NmsPlugin(const Settings &settings) noexcept : settings_(settings) {}

    nvinfer1::IPluginCapability *getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3 *clone() noexcept override;

    const char *getPluginName() const noexcept override { return kPluginName; }
    const char *getPluginVersion() const noexcept override { return kPluginVersion; }
    const char *getPluginNamespace() const noexcept override { return kPluginNamespace; }

    int32_t getNbOutputs() const noexcept override { return 4 + settings_.edge_sigma; }
    int32_t getOutputDataTypes(nvinfer1::DataType *types, int32_t outputs, const nvinfer1::DataType *input_types,
                               int32_t inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs *inputs, int32_t input_count, const nvinfer1::DimsExprs *,
                            int32_t, nvinfer1::DimsExprs *outputs, int32_t output_count,
                            nvinfer1::IExprBuilder &builder) noexcept override;
    bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc *tensors, int32_t inputs,
                                   int32_t outputs) noexcept override;
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc *inputs, int32_t input_count,
                            const nvinfer1::DynamicPluginTensorDesc *outputs, int32_t output_count) noexcept override;
    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc *inputs, int32_t input_count,
                            const nvinfer1::DynamicPluginTensorDesc *outputs,
                            int32_t output_count) const noexcept override;

    int32_t onShapeChange(const nvinfer1::PluginTensorDesc *inputs, int32_t input_count,
                          const nvinfer1::PluginTensorDesc *outputs, int32_t output_count) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc *input_descs, const nvinfer1::PluginTensorDesc *output_descs,
                    const void *const *inputs, void *const *outputs, void *workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3 *attachToContext(nvinfer1::IPluginResourceContext *context) noexcept override;
    const nvinfer1::PluginFieldCollection *getFieldsToSerialize() noexcept override;

   private:
    bool decodes() const noexcept { return settings_.nms.reg_max > 0; }
    int32_t scores_at() const noexcept { return decodes() ? 0 : 1; }
    int32_t inputs() const noexcept { return 2 + settings_.has_quality; }
    /* Parameters at these shapes; batch 0 after a report of what does not fit. */
    GflNmsParams params_at(const nvinfer1::Dims *shapes, nvinfer1::DataType type) const noexcept;
    /* Report, with a message as for printf; always returns -1. */
    __attribute__((format(printf, 2, 3))) int32_t failed(const char *format, ...) const noexcept;

    Settings settings_;
    nvinfer1::IErrorRecorder *recorder_ = nullptr; /* of the execution context that this clone is attached to */
    std::array<nvinfer1::PluginField, kMostFields> fields_{};
    nvinfer1::PluginFieldCollection collection_{};
};

class NmsCreator final : public nvinfer1::IPluginCreatorV3One {
   public:
    NmsCreator() noexcept;
    const char *getPluginName() const noexcept override { return kPluginName; }
    const char *getPluginVersion() const noexcept override { return kPluginVersion; }
    const char *getPluginNamespace() const noexcept override { return kPluginNamespace; }
    const nvinfer1::PluginFieldCollection *getFieldNames() noexcept override { return &collection_; }
    /* Returns nullptr, after a report, where the attributes do not make a plugin. */
    nvinfer1::IPluginV3 *createPlugin(const char *name, const nvinfer1::PluginFieldCollection *fields,
                                      nvinfer1::TensorRTPhase phase) noexcept override;

   private:
    std::array<nvinfer1::PluginField, kMostFields> fields_{};
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace gfl_edge

extern "C" {

/* IPluginRegistry::loadLibrary (load_library in Python, --dynamicPlugins of trtexec) looks for these two. */
nvinfer1::IPluginCreatorInterface *const *getCreators(int32_t &count);
void setLoggerFinder(nvinfer1::ILoggerFinder *finder);

/* For programs that link or open the library themselves. The registry is an argument so that the library needs no symbol
 * of TensorRT's: Python loads TensorRT where other libraries cannot see its symbols.
 *
 * registry: of getPluginRegistry(). logger: takes what goes wrong; may be NULL.
 * Returns false if the registry refuses the plugin; true if it has it already.
 */
bool initGflEdgePlugins(nvinfer1::IPluginRegistry *registry, nvinfer1::ILogger *logger);
}

#endif
