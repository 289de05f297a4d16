"""With several runs under way the results are the same, in order, and no more are under way than promised."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest

from gfl_edge.backends.onnx_cpu import CORES_VARIABLE, WAITING, cores
from gfl_edge.camera.run import performance_for, run_camera
from gfl_edge.detector import Detector
from gfl_edge.errors import BackendError, FrameError, InputError
from gfl_edge.media.images import write_image
from gfl_edge.media.opening import is_recorded

BACKENDS = ("openvino", "onnxruntime")


@pytest.fixture(scope="module", params=BACKENDS)
def detectors(request):
    pytest.importorskip(request.param)
    with (
        Detector(backend=request.param) as latency,
        Detector(backend=request.param, performance="throughput") as throughput,
    ):
        yield latency, throughput


@pytest.fixture(scope="module")
def throughput():
    with Detector(performance="throughput") as detector:
        yield detector


def frames(number):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (120, 100 + 10 * i, 3), np.uint8) for i in range(number)]


def prepared(detector, images):
    return (detector.prepare([image]) for image in images)


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.class_ids, b.class_ids)


@pytest.mark.parametrize("backend", BACKENDS)
def test_so_many_cores_as_are_named_are_taken(backend, monkeypatch):
    pytest.importorskip(backend)
    monkeypatch.setenv(CORES_VARIABLE, "1")
    with Detector(backend=backend, performance="throughput") as detector:
        assert detector.in_flight == 1 + WAITING


def test_threads_of_some_cores_are_pinned_to_none(monkeypatch):
    """OpenVINO would pin those of every process to the same first cores, which all processes then share."""
    pytest.importorskip("openvino")
    monkeypatch.setenv(CORES_VARIABLE, "1")
    with Detector(backend="openvino", performance="throughput") as detector:
        network = detector.backend._all_requests[0].get_compiled_model()
        assert network.get_property("ENABLE_CPU_PINNING") is False
        assert network.get_property("INFERENCE_NUM_THREADS") == 1


def test_cores_are_a_number(monkeypatch):
    monkeypatch.delenv(CORES_VARIABLE, raising=False)
    given = cores()
    monkeypatch.setenv(CORES_VARIABLE, "1000000")
    assert cores() == given, "no more than there are"
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv(CORES_VARIABLE, wrong)
        with pytest.raises(InputError, match=f"GFL_EDGE_CORES is '{wrong}': expected a whole number of cores"):
            cores()


def test_results_are_those_of_one_at_a_time_in_order(detectors):
    latency, throughput = detectors
    images = frames(7)
    assert latency.in_flight == 1 < throughput.in_flight
    found = [inference.detections[0] for inference in throughput.infer_all(prepared(throughput, images))]
    assert_same(found, [latency(image) for image in images])
    assert_same([throughput(images[3])], [latency(images[3])])  # one at a time works, too
    assert_same(throughput.detect_batch(images[:3]), latency.detect_batch(images[:3]))


def test_no_more_are_taken_than_are_under_way(throughput):
    taken = []

    def source():
        for image in frames(1) * 20:
            taken.append(image)
            yield throughput.prepare([image])

    results = throughput.infer_all(source())
    for done in range(1, 6):
        next(results)
        assert done < len(taken) < done + throughput.in_flight


def test_many_that_are_never_finished_leave_room_for_others(throughput):
    for _ in range(3 * throughput.in_flight):
        throughput.start(throughput.prepare(frames(1)))  # dropped
    results = throughput.infer_all(prepared(throughput, frames(9)))
    assert len(list(islice(results, 2))) == 2
    results.close()  # in the middle
    assert len(list(throughput.infer_all(prepared(throughput, frames(9))))) == 9


def test_an_error_of_the_images_ends_it_and_the_detector_goes_on(throughput):
    def source():
        yield from prepared(throughput, frames(4))
        raise FrameError("broken")

    results = throughput.infer_all(source())
    found = []
    with pytest.raises(FrameError, match="broken"):
        found.extend(results)
    assert len(list(throughput.infer_all(prepared(throughput, frames(5))))) == 5


def test_an_error_of_the_library_is_told_and_the_detector_goes_on(throughput, monkeypatch):
    wrong = [throughput.prepare([image]) for image in frames(3)]
    wrong[1].inputs = np.zeros((1, 5, 5, 3), np.uint8)
    with pytest.raises(InputError, match="5, 5, 3"):
        list(throughput.infer_all(wrong))
    monkeypatch.setattr("gfl_edge.backends.onnx_cpu._outputs_of", failing)
    with pytest.raises(BackendError, match="out of order"):
        list(throughput.infer_all(prepared(throughput, frames(3))))
    monkeypatch.undo()
    assert len(list(throughput.infer_all(prepared(throughput, frames(5))))) == 5


def failing(*_):
    raise RuntimeError("out of order")


def test_frames_are_inferred_once(throughput):
    once = throughput.prepare(frames(1))
    throughput.finish(throughput.start(once))
    with pytest.raises(InputError, match="inferred already"):
        throughput.start(once)


def test_one_thread_may_start_what_another_finishes(throughput):
    images, started, found = frames(12), [], []
    room = threading.Semaphore(throughput.in_flight)
    ready = threading.Semaphore(0)

    def start():
        for image in images:
            room.acquire()
            started.append(throughput.start(throughput.prepare([image])))
            ready.release()

    thread = threading.Thread(target=start)
    thread.start()
    for number in range(len(images)):
        ready.acquire()
        found.append(throughput.finish(started[number]).detections[0])
        room.release()
    thread.join()
    assert_same(found, [throughput(image) for image in images])


def test_a_file_is_run_for_throughput_and_a_camera_for_latency(tmp_path):
    video = tmp_path / "clip.avi"
    video.write_bytes(b"clip")
    assert performance_for([str(video)]) == performance_for([tmp_path]) == performance_for([0, 1]) == "throughput"
    assert performance_for([0]) == performance_for(["rtsp://camera"]) == performance_for(["a ! b"]) == "latency"
    assert not any(map(is_recorded, ("no such file", "\0", "0", 3)))


def test_a_video_gives_the_same_whatever_the_detector_is_fast_at(tmp_path, detectors):
    for number, image in enumerate(frames(6)):
        write_image(tmp_path / f"{number:02}.png", image)
    runs = []
    for detector in detectors:
        found = []
        summary = run_camera(detector, tmp_path, show=False, on_frame=lambda frame, d, found=found: found.append(d))
        assert summary.frames == 6
        runs.append(found)
    assert_same(runs[1], runs[0])


def test_a_detector_can_be_used_after_a_camera_stopped_in_the_middle(tmp_path, throughput):
    for number, image in enumerate(frames(12)):
        write_image(tmp_path / f"{number:02}.png", image)

    def stop(*_):
        raise KeyboardInterrupt

    for _ in range(3):
        assert run_camera(throughput, tmp_path, show=False, on_frame=stop).stopped_by == "interrupt"
    assert run_camera(throughput, tmp_path, show=False).frames == 12


def test_what_is_neither_is_refused():
    with pytest.raises(InputError, match="unknown choice 'speed': expected one of latency, throughput"):
        Detector(performance="speed")
