// The entry point that nvinfer looks up by the name in its configuration: parse-bbox-func-name=NvDsInferParseCustomGfl
#include "gfl_deepstream.h"

#include <exception>

extern "C" bool NvDsInferParseCustomGfl(std::vector<NvDsInferLayerInfo> const& outputLayersInfo,
                                        NvDsInferNetworkInfo const& networkInfo,
                                        NvDsInferParseDetectionParams const& detectionParams,
                                        std::vector<NvDsInferObjectDetectionInfo>& objectList) {
  try {
    return gfl::parse(outputLayersInfo, networkInfo, detectionParams, objectList);
  } catch (const std::exception& error) {  // there is no memory: nvinfer is C++ of another compiler, and GStreamer is C
    std::fprintf(stderr, "gfl_edge: %s\n", error.what());
    return false;
  }
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseCustomGfl)
