"""A ROS 2 node: images in, vision_msgs/Detection2DArray and, for whoever listens, annotated images out.

    source /opt/ros/humble/setup.bash
    python examples/ros2_node.py --ros-args -r image:=/camera/image_raw -p score:=0.4 -p classes:="['person']"

Topics:
    image       in, sensor_msgs/Image; the newest counts
    detections  out, vision_msgs/Detection2DArray, with the header of the image
    annotated   out, sensor_msgs/Image, while somebody listens

Parameters:
    model            .onnx or .engine file; "" for the bundled detector
    score            from which on detections count; negative for what the model recommends
    classes          names of those that count; [""] for all
    track            whether detections have an identity, as their id
    image_transport  raw, or compressed: images are sensor_msgs/CompressedImage, and topics end in /compressed

Written for ROS 2 Humble (JetPack 6's Ubuntu) and newer; tried with stand-ins for ROS, whose messages check types as its
own do.
"""

from __future__ import annotations

import argparse
import array
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if __package__ in (None, ""):  # run as a script: the checkout's packages are not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gfl_edge import optional
from gfl_edge.console import run_command
from gfl_edge.detections import Detections
from gfl_edge.detector import Detector
from gfl_edge.errors import FrameError, GflEdgeError, InputError, MissingDependencyError
from gfl_edge.filters import DetectionFilter
from gfl_edge.media.draw import draw_detections
from gfl_edge.media.formats import read_header
from gfl_edge.media.limits import too_large
from gfl_edge.ops.preprocess import AnyFrame, Nv12Frame, as_bgr, checked_size
from gfl_edge.tracking.tracker import ObjectTracker

# Bytes of a pixel, and what OpenCV calls the way to BGR
ENCODINGS = {
    **dict.fromkeys(("bgr8", "8UC3"), (3, "")),
    "rgb8": (3, "COLOR_RGB2BGR"),
    "bgra8": (4, "COLOR_BGRA2BGR"),
    "rgba8": (4, "COLOR_RGBA2BGR"),
    **dict.fromkeys(("mono8", "8UC1"), (1, "COLOR_GRAY2BGR")),
    **dict.fromkeys(("yuv422", "uyvy"), (2, "COLOR_YUV2BGR_UYVY")),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), (2, "COLOR_YUV2BGR_YUY2")),
}
TRANSPORTS = ("raw", "compressed")
WARN_SECONDS = 5.0  # between warnings of images that cannot be used


def ros() -> SimpleNamespace:
    """What the node needs of ROS.

    Raises:
        MissingDependencyError: it is not there.
    """
    names = ("rclpy", "rclpy.qos", "rclpy.executors", "sensor_msgs.msg", "vision_msgs.msg")
    try:
        found = {name.replace(".", "_"): importlib.import_module(name) for name in names}
    except ImportError as error:
        raise MissingDependencyError(
            f"ROS 2 is not there ({error}). Load it with: source /opt/ros/humble/setup.bash; messages that are missing "
            "come with: sudo apt install ros-humble-vision-msgs"
        ) from error
    return SimpleNamespace(**found)


class DetectorNode:
    """Subscribes, detects and publishes, as the parameters of the node say.

    Args:
        ros: see :func:`ros`.
        detector: detects, instead of the model that the parameter ``model`` names.

    Attributes:
        node: of rclpy.

    Raises:
        GflEdgeError: a parameter, or the model, cannot be used.
    """

    def __init__(self, ros: SimpleNamespace, detector: Detector | None = None) -> None:
        self.ros, self.node = ros, ros.rclpy.create_node("gfl_edge")
        try:
            self._set_up(detector)
        except GflEdgeError:
            self.node.destroy_node()
            raise

    def _set_up(self, detector: Detector | None) -> None:
        model = self._parameter("model", "")
        score = self._parameter("score", -1.0)
        # An empty list has no type in ROS; no class has an empty name
        classes = tuple(name for name in self._parameter("classes", [""]) if name)
        transport = self._parameter("image_transport", "raw")
        if transport not in TRANSPORTS:
            raise InputError(f"image_transport is {transport!r}: expected one of {', '.join(TRANSPORTS)}")
        self._compressed = transport == "compressed"
        self._tracker = ObjectTracker() if self._parameter("track", False) else None
        self._detector = detector or Detector(model or None)
        asked = DetectionFilter(score=None if score < 0 else score, classes=classes)
        self._keep = asked.for_model(self._detector.spec)
        messages, suffix = self.ros.sensor_msgs_msg, "/compressed" if self._compressed else ""
        kind = messages.CompressedImage if self._compressed else messages.Image
        newest = self.ros.rclpy_qos.QoSProfile(
            depth=1,
            reliability=self.ros.rclpy_qos.ReliabilityPolicy.BEST_EFFORT,  # takes what reliable ones send, too
        )
        self._found = self.node.create_publisher(self.ros.vision_msgs_msg.Detection2DArray, "detections", 10)
        self._annotated = self.node.create_publisher(kind, f"annotated{suffix}", 1)
        self.node.create_subscription(kind, f"image{suffix}", self.take, newest)
        self.node.get_logger().info(f"{self._detector.spec.name} detects by {self._detector.backend.name}")

    def _parameter(self, name: str, default: Any) -> Any:
        return self.node.declare_parameter(name, default).value

    def take(self, message: Any) -> None:
        """Detect in an image; one that cannot be used is left out with a warning."""
        try:
            frame = frame_of_compressed(message) if self._compressed else frame_of(message)
            found = self._keep.apply(self._detector(frame), checked_size(frame))
        except InputError as error:
            self.node.get_logger().warning(f"image left out: {error}", throttle_duration_sec=WARN_SECONDS)
            return
        if self._tracker is not None:
            stamp = message.header.stamp
            found = self._tracker.update(found, stamp.sec + stamp.nanosec / 1e9)
        self._found.publish(detections_message(self.ros.vision_msgs_msg, message.header, found))
        if self._annotated.get_subscription_count() > 0:
            self._annotated.publish(self._annotated_message(message.header, frame, found))

    def _annotated_message(self, header: Any, frame: AnyFrame, found: Detections) -> Any:
        image = draw_detections(as_bgr(frame), found)
        messages = self.ros.sensor_msgs_msg
        if self._compressed:
            encoded = optional.load("cv2").imencode(".jpg", image)[1]
            return messages.CompressedImage(header=header, format="jpeg", data=array.array("B", encoded.tobytes()))
        height, width = image.shape[:2]
        return messages.Image(
            header=header,
            height=height,
            width=width,
            encoding="bgr8",
            is_bigendian=0,
            step=3 * width,
            data=array.array("B", image.tobytes()),
        )

    def close(self) -> None:
        """Free the detector and the node."""
        self._detector.close()
        self.node.destroy_node()


def frame_of(message: Any) -> AnyFrame:
    """The frame of a sensor_msgs/Image: uint8 ``[h, w, 3]`` BGR, or NV12, which the GPU takes as it is.

    Raises:
        FrameError: an encoding that is not known, or fewer bytes than it says.
    """
    height, width, step, encoding = message.height, message.width, message.step, message.encoding
    nv12 = encoding == "nv12"
    if not nv12 and encoding not in ENCODINGS:
        raise FrameError(f"its encoding is {encoding!r}, expected nv12 or one of {', '.join(ENCODINGS)}")
    depth, conversion = (1, "") if nv12 else ENCODINGS[encoding]
    rows = height * 3 // 2 if nv12 else height
    content = np.frombuffer(message.data, np.uint8)
    if min(height, width) < 1 or step < depth * width or content.size < rows * step:
        raise FrameError(
            f"it has {content.size} bytes, expected {rows} rows of {step} for {width}x{height} pixels of {encoding}"
        )
    pixels = np.ascontiguousarray(content[: rows * step].reshape(rows, step)[:, : depth * width])
    if nv12:
        return Nv12Frame(pixels)
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv") and width % 2:
        raise FrameError(f"it is {width} pixels wide, expected an even number in {encoding}")
    image = pixels.reshape(height, width, depth)
    cv2 = optional.load("cv2")
    return np.asarray(cv2.cvtColor(image, getattr(cv2, conversion))) if conversion else image


def frame_of_compressed(message: Any) -> AnyFrame:
    """The frame of a sensor_msgs/CompressedImage, uint8 ``[h, w, 3]`` BGR.

    Raises:
        FrameError: it is no image, or too large.
    """
    content, cv2 = bytes(message.data), optional.load("cv2")
    header = read_header(content)
    if header is None or header.size_wh is None:
        raise FrameError(f"its {len(content)} bytes are no image (format {message.format!r})")
    if reason := too_large(*header.size_wh):
        raise FrameError(f"it is {header}: {reason}")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise FrameError(f"it is {header}, and cannot be decoded")
    return np.asarray(image)


def detections_message(messages: Any, header: Any, found: Detections) -> Any:
    """Detections as vision_msgs/Detection2DArray; the id of one is its identity, "" without a tracker."""
    result = messages.Detection2DArray(header=header)
    for index, (left, top, right, bottom) in enumerate(found.boxes.tolist()):
        one = messages.Detection2D(header=header)
        center = one.bbox.center
        position = getattr(center, "position", center)  # of vision_msgs 4, as in Humble; before it had x and y itself
        position.x, position.y = (left + right) / 2, (top + bottom) / 2
        one.bbox.size_x, one.bbox.size_y = right - left, bottom - top
        of = messages.ObjectHypothesisWithPose()
        of.hypothesis.class_id = found.class_names[int(found.class_ids[index])]
        of.hypothesis.score = float(found.scores[index])
        one.results.append(of)
        if found.track_ids is not None:
            one.id = str(int(found.track_ids[index]))
        result.detections.append(one)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the node until Ctrl-C; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="examples/ros2_node.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ros-args", nargs=argparse.REMAINDER, default=[], help="what follows is for ROS")
    return run_command(parser, _run, argv)


def _run(args: argparse.Namespace) -> int:
    loaded = ros()
    loaded.rclpy.init(args=["--ros-args", *args.ros_args])
    try:
        node = DetectorNode(loaded)
        try:
            loaded.rclpy.spin(node.node)
        except (KeyboardInterrupt, loaded.rclpy_executors.ExternalShutdownException):
            return 0
        finally:
            node.close()
    finally:
        loaded.rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
