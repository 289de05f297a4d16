"""In place of ROS 2: messages that check the types of their fields as those that rosidl makes do, and a node."""

from __future__ import annotations

import array
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest


class Message:
    """Fields by name: the type of the value, and what makes the default. No others can be set."""

    fields: ClassVar[dict[str, tuple[type, Callable[[], Any]]]] = {}

    def __init__(self, **values: Any) -> None:
        assert set(values) <= set(self.fields), f"Invalid arguments passed to constructor: {sorted(values)}"
        for name, (_, default) in self.fields.items():
            setattr(self, name, values.get(name, default()))

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.fields:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        kind = self.fields[name][0]
        assert type(value) is kind or (kind is list and isinstance(value, list)), (
            f"The {name!r} field must be of type {kind.__name__!r}, not {type(value).__name__!r}"
        )
        assert kind is not int or value >= 0
        object.__setattr__(self, name, value)


def message(name: str, **fields: type | Any) -> type[Message]:
    """A class of messages; types of fields are int, float, str, list, array.array or other messages."""
    made = {
        field: (kind, (lambda: array.array("B")) if kind is array.array else kind) for field, kind in fields.items()
    }
    return type(name, (Message,), {"fields": made})


Time = message("Time", sec=int, nanosec=int)
Header = message("Header", stamp=Time, frame_id=str)
Image = message(
    "Image",
    header=Header,
    height=int,
    width=int,
    encoding=str,
    is_bigendian=int,
    step=int,
    data=array.array,
)
CompressedImage = message("CompressedImage", header=Header, format=str, data=array.array)
Point2D = message("Point2D", x=float, y=float)
Pose2D = message("Pose2D", position=Point2D, theta=float)
BoundingBox2D = message("BoundingBox2D", center=Pose2D, size_x=float, size_y=float)
ObjectHypothesis = message("ObjectHypothesis", class_id=str, score=float)
ObjectHypothesisWithPose = message("ObjectHypothesisWithPose", hypothesis=ObjectHypothesis)
Detection2D = message("Detection2D", header=Header, results=list, bbox=BoundingBox2D, id=str)
Detection2DArray = message("Detection2DArray", header=Header, detections=list)


class Publisher:
    def __init__(self, kind: type[Message]) -> None:
        self.kind, self.sent, self.listeners = kind, [], 0

    def publish(self, sent: Message) -> None:
        assert type(sent) is self.kind
        self.sent.append(sent)

    def get_subscription_count(self) -> int:
        return self.listeners


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str, throttle_duration_sec: float = 0.0) -> None:
        assert throttle_duration_sec > 0, "a camera of another encoding would fill the log"
        self.lines.append(text)


class Node:
    def __init__(self, ros: Ros, name: str) -> None:
        self.ros, self.name, self.logger = ros, name, Logger()
        self.publishers: dict[str, Publisher] = {}
        self.subscriptions: dict[str, tuple[type[Message], Callable[[Any], None], Any]] = {}
        self.destroyed = 0

    def declare_parameter(self, name: str, default: Any) -> SimpleNamespace:
        value = self.ros.parameters.get(name, default)
        if type(value) is not type(default):
            raise TypeError(f"Wrong parameter type of {name}")
        return SimpleNamespace(value=value)

    def create_publisher(self, kind: type[Message], topic: str, qos: Any) -> Publisher:
        return self.publishers.setdefault(topic, Publisher(kind))

    def create_subscription(self, kind: type[Message], topic: str, callback: Callable[[Any], None], qos: Any) -> None:
        self.subscriptions[topic] = kind, callback, qos

    def get_logger(self) -> Logger:
        return self.logger

    def destroy_node(self) -> None:
        self.destroyed += 1


class Ros:
    """What ``import`` finds.

    Attributes:
        parameters: of the nodes.
        nodes: that were made.
        spin: what a node does while it runs.
        up: whether ROS runs.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parameters: dict[str, Any] = {}
        self.nodes: list[Node] = []
        self.spin: Callable[[Node], None] = lambda node: None
        self.up = False
        for name, content in {
            "rclpy": {
                "init": self._init,
                "create_node": self._create,
                "spin": lambda node: self.spin(node),
                "try_shutdown": self._shutdown,
            },
            "rclpy.qos": {
                "QoSProfile": lambda **settings: SimpleNamespace(**settings),
                "ReliabilityPolicy": SimpleNamespace(BEST_EFFORT="best effort"),
            },
            "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {})},
            "sensor_msgs.msg": {"Image": Image, "CompressedImage": CompressedImage},
            "vision_msgs.msg": {
                "Detection2DArray": Detection2DArray,
                "Detection2D": Detection2D,
                "ObjectHypothesisWithPose": ObjectHypothesisWithPose,
            },
        }.items():
            package = name.partition(".")[0]
            if package != name and package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, ModuleType(package))
            module = ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)

    def _init(self, args: list[str] | None = None) -> None:
        self.up = True

    def _shutdown(self) -> None:
        self.up = False

    def _create(self, name: str) -> Node:
        self.nodes.append(Node(self, name))
        return self.nodes[-1]
