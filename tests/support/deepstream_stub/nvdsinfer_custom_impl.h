// The names and fields of DeepStream's public interface that the parser uses, for hosts without DeepStream. In their
// order and with the habits that a compiler sees: a union of two names, a reference among the parameters, and the
// rotation that objects have since DeepStream 9.1 (-DDEEPSTREAM_ROTATES).
#pragma once
#include <vector>

#define NVDSINFER_MAX_DIMS 8

enum NvDsInferDataType { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3, INT64 = 4, UINT8 = 5 };

struct NvDsInferDims {
  unsigned int numDims;
  unsigned int d[NVDSINFER_MAX_DIMS];
  unsigned int numElements;
};

struct NvDsInferLayerInfo {
  NvDsInferDataType dataType;
  union {
    NvDsInferDims inferDims;
    NvDsInferDims dims __attribute__((deprecated("dims is inferDims now")));
  };
  int bindingIndex;
  const char* layerName;
  void* buffer;
  int isInput;
};

struct NvDsInferNetworkInfo {
  unsigned int width, height, channels;
};

struct NvDsInferParseDetectionParams {
  unsigned int numClassesConfigured;
  std::vector<float> perClassPreclusterThreshold, perClassPostclusterThreshold;
  std::vector<float>& perClassThreshold = perClassPreclusterThreshold;
};

struct NvDsInferObjectDetectionInfo {
  unsigned int classId;
  float left, top, width, height, detectionConfidence;
#ifdef DEEPSTREAM_ROTATES
  float rotation_angle;
#endif
};

using NvDsInferParseCustomFunc = bool (*)(const std::vector<NvDsInferLayerInfo>&, const NvDsInferNetworkInfo&,
                                          const NvDsInferParseDetectionParams&,
                                          std::vector<NvDsInferObjectDetectionInfo>&);

#define CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(name) \
  [[maybe_unused]] static const NvDsInferParseCustomFunc check_##name = name;
