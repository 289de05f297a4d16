"""GStreamer's RTSP server with a moving test image at /small and /large: python3 rtsp_server.py PORT [USER PASSWORD].

It also gives /h264 and /h265, and takes H.264 at /record, for the file that the variable RECORD_TO names.
Runs in the system's Python, which has GStreamer's bindings, in a process of its own, until it is killed. On Debian and
Ubuntu: apt-get install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-base gstreamer1.0-plugins-good
"""

import os
import sys

SIZES_WH = {"/small": (128, 96), "/large": (320, 240)}
ROLE = "user,media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
PIPELINE = (
    "( videotestsrc is-live=true ! video/x-raw,format=I420,width={},height={},framerate=25/1 ! jpegenc ! "
    "rtpjpegpay name=pay0 )"
)

SOURCE = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=25/1"
CODED = {
    "/h264": f"( {SOURCE} ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12 ! rtph264pay name=pay0 )",
    "/h265": f"( {SOURCE} ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=12 ! rtph265pay name=pay0 )",
}
RECORD = "( rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink sync=false location={} )"


def serve(port: str, *login: str) -> None:
    """For everybody, or for whoever knows user and password."""
    import gi  # type: ignore[import-not-found]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_service(port)
    server.set_address("127.0.0.1")
    launches = {path: PIPELINE.format(*size_wh) for path, size_wh in SIZES_WH.items()}
    for path, launch in {**launches, **CODED, "/record": RECORD.format(os.environ.get("RECORD_TO"))}.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(launch)
        factory.set_shared(path != "/record")
        if path == "/record":
            factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        roles = Gst.Structure.new_from_string(
            "user,media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
        )
        factory.add_role_from_structure(roles)
        server.get_mount_points().add_factory(path, factory)
    if login:
        authentication, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        authentication.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
        server.set_auth(authentication)
    server.attach(None)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
