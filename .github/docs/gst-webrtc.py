#!/usr/bin/env python3
"""Publish to WHIP and view by WHEP with GStreamer's webrtcbin.

    gst-webrtc.py publish URL [PIPELINE]
    gst-webrtc.py view URL FILE

PIPELINE is what gst-launch-1.0 takes, and ends its branches in "! peer."; without
one a test picture and tone are sent. FILE is written as WebM (VP8, Opus) until
Ctrl-C. A token goes in the environment, as WEIR_TOKEN.

GStreamer 1.20 or newer with webrtcbin and libnice. In Debian:

    apt-get install python3-gst-1.0 gir1.2-gst-plugins-bad-1.0 \
        gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-nice
"""

import os
import signal
import sys
import urllib.error
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

TEST = (
    "videotestsrc is-live=true ! video/x-raw,width=640,height=360,framerate=25/1 ! "
    "vp8enc deadline=1 keyframe-max-dist=50 target-bitrate=1000000 ! rtpvp8pay pt=96 ! peer. "
    "audiotestsrc is-live=true volume=0.1 ! audioconvert ! opusenc ! rtpopuspay pt=97 ! peer."
)
# Where what is viewed goes: each depayloader takes the pad of its kind.
SAVE = (
    "webmmux name=mux streamable=true ! filesink name=file "
    "rtpvp8depay name=video ! queue ! mux. rtpopusdepay name=audio ! opusparse ! queue ! mux."
)
KINDS = {
    "video": "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000",
    "audio": "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,encoding-params=(string)2",
}
MOST_REDIRECTS = 5


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed here: urllib would not repeat a POST."""

    def redirect_request(self, *_):
        return None


def exchange(url, offer, token):
    """Send an offer; return the answer and the session's URL."""
    opener = urllib.request.build_opener(NoRedirect)
    for _ in range(MOST_REDIRECTS + 1):
        request = urllib.request.Request(url, offer.encode(), {"Content-Type": "application/sdp"})
        if token:
            request.add_header("Authorization", "Bearer " + token)
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.read().decode(), urllib.parse.urljoin(url, answer.headers["Location"])
        except urllib.error.HTTPError as refused:
            if refused.code not in (307, 308):
                sys.exit(f"{refused.code}: {refused.read().decode(errors='replace')}")
            url, token = urllib.parse.urljoin(url, refused.headers["Location"]), None  # it has a ticket
    sys.exit("too many redirects")


class Session:
    """One session: an offer once all candidates are known, and an answer."""

    def __init__(self, url, pipeline, token):
        self.url, self.token, self.resource, self.code = url, token, None, 0
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch("webrtcbin name=peer bundle-policy=max-bundle " + pipeline)
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-negotiation-needed", self.offer)
        self.peer.connect("notify::ice-gathering-state", self.gathered)
        self.peer.connect("notify::connection-state", self.connected)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.failed)
        bus.connect("message::eos", lambda *_: self.loop.quit())

    def offer(self, peer):
        def created(promise):
            reply = promise.get_reply()  # the offer is a part of it
            peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(created))

    def gathered(self, peer, _):
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE and not self.resource:
            GLib.idle_add(self.negotiate)

    def negotiate(self):
        offer = self.peer.get_property("local-description").sdp.as_text()
        answer, self.resource = exchange(self.url, offer, self.token)
        _, sdp = GstSdp.SDPMessage.new_from_text(answer)
        self.peer.emit(
            "set-remote-description",
            GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp),
            Gst.Promise.new(),
        )
        return False

    def connected(self, peer, _):
        state = peer.get_property("connection-state")
        print(state.value_nick, flush=True)
        if state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            self.code = 1
            self.loop.quit()

    def failed(self, _, message):
        print(message.parse_error().gerror.message, file=sys.stderr)
        self.code = 1
        self.loop.quit()

    def run(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.loop.quit)
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        if self.resource:
            request = urllib.request.Request(self.resource, method="DELETE")
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except OSError:
                pass  # it is over already
        sys.exit(self.code)


def view(url, path, token):
    session = Session(url, SAVE, token)
    session.pipeline.get_by_name("file").set_property("location", path)
    for caps in KINDS.values():
        session.peer.emit(
            "add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, Gst.Caps.from_string(caps)
        )

    def added(_, pad):
        kind = pad.get_current_caps().get_structure(0).get_string("media")
        pad.link(session.pipeline.get_by_name(kind).get_static_pad("sink"))

    session.peer.connect("pad-added", added)
    session.run()


def main():
    args = sys.argv[1:]
    if len(args) not in (2, 3) or args[0] not in ("publish", "view") or args[0] == "view" and len(args) != 3:
        sys.exit(__doc__)
    Gst.init(None)
    token = os.environ.get("WEIR_TOKEN")
    if args[0] == "view":
        view(args[1], args[2], token)
    else:
        Session(args[1], args[2] if len(args) == 3 else TEST, token).run()


if __name__ == "__main__":
    main()
