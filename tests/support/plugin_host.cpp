/* A TensorRT that is none, which does with the plugin GflNms what TensorRT does: create, infer shapes, ask for formats and
 * workspace, serialize, create again from that, attach, run. On host memory, with the emulated kernels. */
#include <NvInfer.h>

#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "../../plugins/tensorrt/gfl_nms_plugin.h"

using namespace nvinfer1;

namespace {

struct Log final : ILogger {
    std::string text;
    void log(Severity, const char *message) noexcept override { text = text + message + "\n"; }
} logger;

struct Finder : ILoggerFinder {
    ILogger *findLogger() override { return &logger; }
} finder;

struct Number final : IDimensionExpr, apiv::VDimensionExpr {
    explicit Number(int64_t value) : value(value) { mImpl = this; }
    bool isConstant() const override { return true; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
};

struct Expressions final : IExprBuilder, apiv::VExprBuilder {
    Expressions() { mImpl = this; }
    const IDimensionExpr *constant(int64_t value) override { return &numbers.emplace_back(value); }
    const IDimensionExpr *operation(DimensionOperation, const IDimensionExpr &, const IDimensionExpr &) override {
        return nullptr;
    }
    const IDimensionExpr *declareSizeTensor(int32_t, const IDimensionExpr &, const IDimensionExpr &) override {
        return nullptr;
    }
    std::deque<Number> numbers;
};

/* What an engine file keeps of a plugin: names, types and numbers, no pointer into the plugin. */
struct Stored {
    std::deque<std::string> names;
    std::deque<std::vector<char>> numbers;
    std::vector<PluginField> fields;
    explicit Stored(const PluginFieldCollection &from) {
        for (int32_t i = 0; i < from.nbFields; ++i) {
            const PluginField &field = from.fields[i];
            const char *data = static_cast<const char *>(field.data);
            names.emplace_back(field.name);
            numbers.emplace_back(data, data + 4 * field.length);
            fields.emplace_back(names.back().c_str(), numbers.back().data(), field.type, field.length);
        }
    }
};

template <typename Capability>
Capability *capability(IPluginV3 *plugin, PluginCapabilityType type) {
    return static_cast<Capability *>(plugin->getCapabilityInterface(type));
}

}  // namespace

struct Tensor {
    void *data;
    int32_t type; /* DataType */
    int32_t rank;
    int64_t shape[4];
};

namespace {

PluginTensorDesc describe(const Tensor &tensor) {
    PluginTensorDesc desc{};
    desc.dims.nbDims = tensor.rank;
    for (int32_t i = 0; i < tensor.rank; ++i) desc.dims.d[i] = tensor.shape[i];
    desc.type = static_cast<DataType>(tensor.type);
    desc.format = TensorFormat::kLINEAR;
    return desc;
}

/* 0 once the outputs, whose types and shapes are checked against the plugin's, are filled. */
int run(IPluginCreatorV3One &creator, const PluginFieldCollection &attributes, std::vector<Tensor> tensors, int inputs) {
    const int32_t outputs = static_cast<int32_t>(tensors.size()) - inputs;
    std::unique_ptr<IPluginV3> first{creator.createPlugin("node", &attributes, TensorRTPhase::kBUILD)};
    if (!first) return 1;
    auto *build = capability<IPluginV3OneBuild>(first.get(), PluginCapabilityType::kBUILD);
    if (build->getNbOutputs() != outputs) return 2;

    std::vector<PluginTensorDesc> descs;
    std::vector<DynamicPluginTensorDesc> dynamic;
    std::vector<DimsExprs> dims(tensors.size());
    std::vector<DataType> types;
    Expressions expressions;
    for (const Tensor &tensor : tensors) {
        descs.push_back(describe(tensor));
        dynamic.push_back({descs.back(), descs.back().dims, descs.back().dims, descs.back().dims});
        types.push_back(descs.back().type);
        DimsExprs &sizes = dims[descs.size() - 1];
        sizes.nbDims = tensor.rank;
        for (int32_t i = 0; i < tensor.rank; ++i) sizes.d[i] = expressions.constant(tensor.shape[i]);
    }
    std::vector<DimsExprs> inferred(outputs);
    if (build->getOutputShapes(dims.data(), inputs, nullptr, 0, inferred.data(), outputs, expressions)) return 3;
    std::vector<DataType> output_types(outputs);
    if (build->getOutputDataTypes(output_types.data(), outputs, types.data(), inputs)) return 4;
    for (int32_t i = 0; i < outputs; ++i) {
        const Tensor &tensor = tensors[inputs + i];
        if (output_types[i] != types[inputs + i] || inferred[i].nbDims != tensor.rank) return 5;
        for (int32_t axis = 0; axis < tensor.rank; ++axis)
            if (inferred[i].d[axis]->getConstantValue() != tensor.shape[axis]) return 6;
    }
    for (size_t i = 0; i < tensors.size(); ++i)
        if (!build->supportsFormatCombination(i, dynamic.data(), inputs, outputs)) return 7;
    if (build->configurePlugin(dynamic.data(), inputs, dynamic.data() + inputs, outputs)) return 8;
    const size_t size = build->getWorkspaceSize(dynamic.data(), inputs, dynamic.data() + inputs, outputs);

    std::unique_ptr<IPluginV3> copy{first->clone()};
    auto *copied = capability<IPluginV3OneRuntime>(copy.get(), PluginCapabilityType::kRUNTIME);
    const Stored stored(*copied->getFieldsToSerialize());
    copy.reset();
    first.reset();
    const PluginFieldCollection kept{static_cast<int32_t>(stored.fields.size()), stored.fields.data()};
    std::unique_ptr<IPluginV3> loaded{creator.createPlugin("node", &kept, TensorRTPhase::kRUNTIME)};
    if (!loaded) return 9;
    std::unique_ptr<IPluginV3> attached{
        capability<IPluginV3OneRuntime>(loaded.get(), PluginCapabilityType::kRUNTIME)->attachToContext(nullptr)};
    auto *runtime = capability<IPluginV3OneRuntime>(attached.get(), PluginCapabilityType::kRUNTIME);
    if (runtime->onShapeChange(descs.data(), inputs, descs.data() + inputs, outputs)) return 10;

    std::vector<const void *> sources;
    std::vector<void *> targets;
    for (size_t i = 0; i < tensors.size(); ++i)
        i < static_cast<size_t>(inputs) ? sources.push_back(tensors[i].data) : targets.push_back(tensors[i].data);
    constexpr char guard = 0x5a;
    std::vector<char> block(size + 512, guard);
    char *workspace = block.data() + (256 - reinterpret_cast<size_t>(block.data()) % 256) + 16; /* TensorRT promises no more */
    if (runtime->enqueue(descs.data(), descs.data() + inputs, sources.data(), targets.data(), workspace, nullptr)) return 11;
    for (const char *byte = workspace + size; byte < block.data() + block.size(); ++byte)
        if (*byte != guard) return 12;
    return 0;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int run_plugin(const PluginField *fields, int32_t field_count,
                                                                 const Tensor *tensors, int32_t inputs, int32_t outputs,
                                                                 char *log, size_t log_size) {
    setLoggerFinder(&finder);
    logger.text.clear();
    int32_t count = 0;
    IPluginCreatorInterface *const *creators = getCreators(count);
    auto *creator = static_cast<IPluginCreatorV3One *>(creators[0]);
    const PluginFieldCollection attributes{field_count, fields};
    const int status = count == 1 ? run(*creator, attributes, {tensors, tensors + inputs + outputs}, inputs) : -1;
    std::strncpy(log, logger.text.c_str(), log_size - 1);
    return status;
}

/* The names of the attributes, as the ONNX parser asks for them, one a line. */
extern "C" __attribute__((visibility("default"))) void attribute_names(char *names, size_t size) {
    int32_t count = 0;
    auto *creator = static_cast<IPluginCreatorV3One *>(getCreators(count)[0]);
    std::string text;
    const PluginFieldCollection *fields = creator->getFieldNames();
    for (int32_t i = 0; i < fields->nbFields; ++i) text = text + fields->fields[i].name + "\n";
    std::strncpy(names, text.c_str(), size - 1);
}
