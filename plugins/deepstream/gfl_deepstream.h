// What gfl_edge's models give, as DeepStream's objects: the logic of the parser, without its entry point.
//
// Two forms of outputs, told by their names; sizes are those of one image, as nvinfer hands them over:
//
//   num_dets int32 [1], det_boxes float [K, 4], det_scores float [K], det_classes int32 [K]      NMS in the graph
//   boxes float [A, 4], scores float [A, C]                                                      NMS by nvinfer
//
// Boxes are xyxy in pixels of the network's input, which is what nvinfer expects. Nothing that a network gives is
// trusted: what is no number, inside out, of no class, or not at or above its class's threshold is left out.
#ifndef GFL_DEEPSTREAM_H
#define GFL_DEEPSTREAM_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace gfl {

// Candidates that nvinfer's NMS gets at most, as many as gfl_edge's own; it compares all of a class with each other
constexpr std::size_t kMaxCandidates = 1000;

using Layers = std::vector<NvDsInferLayerInfo>;
using Objects = std::vector<NvDsInferObjectDetectionInfo>;

// The layer of that name, type and last side, with its data; null, with a line on stderr, if there is none.
// `count` gets its number of elements.
inline const void* find_layer(const Layers& layers, const char* name, NvDsInferDataType type, std::size_t last,
                              std::size_t& count) {
  for (const NvDsInferLayerInfo& layer : layers) {
    if (layer.layerName == nullptr || std::strcmp(layer.layerName, name) != 0) continue;
    const NvDsInferDims& dims = layer.inferDims;
    count = 1;
    bool sound = dims.numDims <= NVDSINFER_MAX_DIMS;
    for (unsigned i = 0; sound && i < dims.numDims; ++i) {
      const std::size_t side = static_cast<std::size_t>(dims.d[i]);
      sound = side > 0 && side < (std::size_t{1} << 31) && count < (std::size_t{1} << 31);  // not -1, as if dynamic
      count *= side;
    }
    sound = sound && (last == 1 || (dims.numDims > 0 && static_cast<std::size_t>(dims.d[dims.numDims - 1]) == last));
    if (layer.dataType == type && layer.buffer != nullptr && sound) return layer.buffer;
    std::fprintf(stderr, "gfl_edge: the output %s has another type or shape than a model of gfl_edge\n", name);
    return nullptr;
  }
  std::fprintf(stderr, "gfl_edge: the model has no output %s\n", name);
  return nullptr;
}

inline bool has_layer(const Layers& layers, const char* name) {
  return std::any_of(layers.begin(), layers.end(), [name](const NvDsInferLayerInfo& layer) {
    return layer.layerName != nullptr && std::strcmp(layer.layerName, name) == 0;
  });
}

// Whether a score counts: it is at or above the threshold of its class. False of NaN.
inline bool is_above(float score, unsigned label, const NvDsInferParseDetectionParams& params) {
  const std::vector<float>& limits = params.perClassPreclusterThreshold;
  return score > 0.0F && score <= 1.0F && (label >= limits.size() || score >= limits[label]);
}

// Adds one object, cut off at the network's input, unless its box is no box or has no area there.
inline void add_object(const float* box, float score, unsigned label, const NvDsInferNetworkInfo& network,
                       Objects& objects) {
  for (int i = 0; i < 4; ++i)
    if (!std::isfinite(box[i])) return;
  const float width = static_cast<float>(network.width), height = static_cast<float>(network.height);
  const float left = std::max(box[0], 0.0F), top = std::max(box[1], 0.0F);
  const float right = std::min(box[2], width), bottom = std::min(box[3], height);
  if (!(right > left && bottom > top)) return;
  NvDsInferObjectDetectionInfo object{};  // newer versions of DeepStream have more fields: zero
  object.classId = label;
  object.left = left;
  object.top = top;
  object.width = right - left;
  object.height = bottom - top;
  object.detectionConfidence = score;
  objects.push_back(object);
}

inline bool parse_detections(const Layers& layers, const NvDsInferNetworkInfo& network,
                             const NvDsInferParseDetectionParams& params, Objects& objects) {
  std::size_t one = 0, sides = 0, rows = 0, labels = 0;
  const auto* count = static_cast<const std::int32_t*>(find_layer(layers, "num_dets", INT32, 1, one));
  const auto* boxes = static_cast<const float*>(find_layer(layers, "det_boxes", FLOAT, 4, sides));
  const auto* scores = static_cast<const float*>(find_layer(layers, "det_scores", FLOAT, 1, rows));
  const auto* classes = static_cast<const std::int32_t*>(find_layer(layers, "det_classes", INT32, 1, labels));
  if (count == nullptr || boxes == nullptr || scores == nullptr || classes == nullptr) return false;
  if (one != 1 || sides != 4 * rows || labels != rows) {
    std::fprintf(stderr, "gfl_edge: %zu boxes, %zu scores and %zu classes do not belong together\n", sides / 4, rows,
                 labels);
    return false;
  }
  const std::size_t found = *count < 0 ? 0 : std::min(static_cast<std::size_t>(*count), rows);
  for (std::size_t i = 0; i < found; ++i) {
    if (classes[i] < 0 || static_cast<unsigned>(classes[i]) >= params.numClassesConfigured) continue;
    const unsigned label = static_cast<unsigned>(classes[i]);
    if (is_above(scores[i], label, params)) add_object(boxes + 4 * i, scores[i], label, network, objects);
  }
  return true;
}

struct Candidate {
  float score;
  std::size_t pair;  // anchor * classes + class
};

inline bool parse_candidates(const Layers& layers, const NvDsInferNetworkInfo& network,
                             const NvDsInferParseDetectionParams& params, Objects& objects) {
  std::size_t sides = 0, pairs = 0;
  const std::size_t classes = params.numClassesConfigured;
  const auto* boxes = static_cast<const float*>(find_layer(layers, "boxes", FLOAT, 4, sides));
  const auto* scores = static_cast<const float*>(find_layer(layers, "scores", FLOAT, classes, pairs));
  if (boxes == nullptr || scores == nullptr) return false;
  if (classes == 0 || pairs / classes != sides / 4) {
    std::fprintf(stderr, "gfl_edge: %zu boxes and %zu scores of %zu classes do not belong together\n", sides / 4,
                 pairs, classes);
    return false;
  }
  std::vector<Candidate> best;
  for (std::size_t pair = 0; pair < pairs; ++pair)
    if (is_above(scores[pair], static_cast<unsigned>(pair % classes), params)) best.push_back({scores[pair], pair});
  const std::size_t kept = std::min(best.size(), kMaxCandidates);
  std::partial_sort(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(kept), best.end(),
                    [](const Candidate& a, const Candidate& b) {
                      return a.score > b.score || (a.score == b.score && a.pair < b.pair);
                    });
  for (std::size_t i = 0; i < kept; ++i) {
    const std::size_t anchor = best[i].pair / classes;
    add_object(boxes + 4 * anchor, best[i].score, static_cast<unsigned>(best[i].pair % classes), network, objects);
  }
  return true;
}

// Adds the objects of one image; false, with a line on stderr, where the outputs are not those of gfl_edge.
inline bool parse(const Layers& layers, const NvDsInferNetworkInfo& network,
                  const NvDsInferParseDetectionParams& params, Objects& objects) {
  return has_layer(layers, "num_dets") ? parse_detections(layers, network, params, objects)
                                       : parse_candidates(layers, network, params, objects);
}

}  // namespace gfl

#endif
