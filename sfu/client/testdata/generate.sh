#!/bin/sh
# Makes a clip of a second or so for each codec besides those of the embedded
# pattern, as small as will do, with a keyframe every 10 frames. Needs ffmpeg
# with libvpx, libaom and libx264.
set -eu
cd "$(dirname "$0")"

encode() {
	ffmpeg -hide_banner -loglevel error -y -f lavfi -i testsrc=s=160x90:r=30:d=1 \
		-pix_fmt yuv420p -g 10 -keyint_min 10 -b:v 60k -threads 1 \
		-fflags +bitexact -flags:v +bitexact "$@"
}
encode -c:v libvpx-vp9 -auto-alt-ref 0 -lag-in-frames 0 -deadline realtime -cpu-used 8 -f ivf vp9.ivf
encode -c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -f ivf av1.ivf
encode -c:v libx264 -profile:v baseline -bf 0 -sc_threshold 0 -x264-params slices=2:aud=1 -f h264 baseline.h264
# A page of Ogg that holds many packets.
ffmpeg -hide_banner -loglevel error -y -f lavfi -i sine=440:d=1 -ac 2 -c:a libopus -b:a 16k \
	-frame_duration 10 -page_duration 500000 -fflags +bitexact -flags:a +bitexact -f ogg paged.ogg
ls -l
