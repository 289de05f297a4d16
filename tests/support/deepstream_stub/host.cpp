// Calls the parser as nvinfer does, from Python: arrays in, objects out.
#include "nvdsinfer_custom_impl.h"

extern "C" bool NvDsInferParseCustomGfl(std::vector<NvDsInferLayerInfo> const&, NvDsInferNetworkInfo const&,
                                        NvDsInferParseDetectionParams const&,
                                        std::vector<NvDsInferObjectDetectionInfo>&);

// The number of objects, of which as many as there is room for are in `found`; -1 where the parser refuses.
extern "C" int parse(const NvDsInferLayerInfo* layers, int num_layers, unsigned width, unsigned height,
                     unsigned num_classes, const float* thresholds, int num_thresholds,
                     NvDsInferObjectDetectionInfo* found, int room) {
  NvDsInferParseDetectionParams params{num_classes, {thresholds, thresholds + num_thresholds}, {}};
  std::vector<NvDsInferObjectDetectionInfo> objects;
  if (!NvDsInferParseCustomGfl({layers, layers + num_layers}, {width, height, 3}, params, objects)) return -1;
  for (int i = 0; i < room && i < static_cast<int>(objects.size()); ++i) found[i] = objects[i];
  return static_cast<int>(objects.size());
}
