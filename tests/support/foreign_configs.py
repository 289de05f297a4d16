"""Configurations as other projects write them beside their checkpoints."""

from __future__ import annotations

# As of nanodet's config/*.yml, with an alias for the names; no is a name here and a truth value in YAML
NANODET = """
save_dir: workspace/custom
model:
  weight_averager: {name: ExpMovingAverager, decay: 0.9998}
  arch:
    name: NanoDetPlus
    detach_epoch: 10
    backbone: {name: ShuffleNetV2, model_size: 0.5x, out_stages: [2, 3, 4], activation: LeakyReLU}
    fpn:
      name: GhostPAN
      in_channels: [48, 96, 192]
      out_channels: 96
      activation: LeakyReLU
    head:
      name: NanoDetPlusHead
      num_classes: 3
      stacked_convs: 2
      strides: [8, 16, 32, 64]
      activation: LeakyReLU
      reg_max: 7
class_names: &class_names [person, no, forklift]
data:
  train:
    name: XMLDataset
    class_names: *class_names
    input_size: [320, 320]
    keep_ratio: False
  val:
    name: XMLDataset
    class_names: *class_names
    input_size: [256, 192] # [w,h]
    keep_ratio: True
    pipeline:
      normalize: [[110, 120, 130.0], [60, 61, 62]]
"""

# As a run of mmdetection 3.x dumps it
MMDET_V3 = """
default_scope = 'mmdet'
img_mean = [1.0, 2.0, 3.0]
model = dict(
    backbone=dict(depth=50, type='ResNet'),
    bbox_head=dict(
        anchor_generator=dict(strides=[8, 16, 32, 64, 128], type='AnchorGenerator'),
        num_classes=3, reg_max=16, stacked_convs=1, type='GFLHead'),
    data_preprocessor=dict(
        bgr_to_rgb=True, mean=[100.0, 110.0, 120.0], pad_size_divisor=32, std=[50.0, 51.0, 52.0],
        type='DetDataPreprocessor'),
    test_cfg=dict(
        max_per_img=50, min_bbox_size=0, nms=dict(iou_threshold=0.5, type='nms'), nms_pre=1000, score_thr=0.1),
    type='GFL')
optim_wrapper = dict(optimizer=dict(lr=0.01 * 2, type='SGD'))
test_pipeline = [dict(type='Resize', scale=(9, 9))]
test_dataloader = dict(
    dataset=dict(
        metainfo=dict(classes=('cell', 'plate', 'no')),
        pipeline=[
            dict(backend_args=None, type='LoadImageFromFile'),
            dict(keep_ratio=True, scale=(250, 120), type='Resize'),
            dict(meta_keys=('img_id', 'scale_factor'), type='PackDetInputs'),
        ]))
train_dataloader = dict(dataset=dict(metainfo=dict(classes=('cell', 'plate', 'no'))))
"""

# And one of 2.x, of a network of Caffe's channel order
MMDET_V2 = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
model = dict(
    type='GFL',
    backbone=dict(type='ResNet', depth=50),
    bbox_head=dict(type='GFLHead', num_classes=3, reg_max=16),
    test_cfg=dict(nms_pre=1000, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=100))
data = dict(
    samples_per_gpu=2,
    train=dict(type='CocoDataset', classes=('cell', 'plate', 'no')),
    test=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='MultiScaleFlipAug',
                img_scale=(256, 96),
                flip=False,
                transforms=[dict(type='Resize', keep_ratio=False), dict(type='Normalize', **img_norm_cfg)])
        ]))
"""

# As PaddleDetection writes it beside an export: infer_cfg.yml
PADDLE = """
mode: paddle
draw_threshold: 0.5
metric: COCO
use_dynamic_shape: false
arch: PicoDet
min_subgraph_size: 3
Preprocess:
- interp: 2
  keep_ratio: false
  target_size:
  - 64
  - 160
  type: Resize
- is_scale: true
  mean: [0.485, 0.456, 0.406]
  std: [0.229, 0.224, 0.225]
  type: NormalizeImage
- type: Permute
label_list:
- person
- helmet
- vest
NMS: {keep_top_k: 100, name: MultiClassNMS, nms_threshold: 0.6, nms_top_k: 1000, score_threshold: 0.025}
fpn_stride: [8, 16, 32, 64]
"""
