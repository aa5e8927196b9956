#!/bin/sh
# Makes the embedded test clip: ten seconds that loop without a seam.
#
#   pattern.ivf  VP8, 640x360, 30 frames/s, 300 frames, a keyframe every 15
#   pattern.ogg  Opus, 48 kHz, 20 ms frames, a beep at each full second
#
# The frame counter runs from 000 to 299, the bar at the bottom crosses the
# picture once a second, and the white square shows while the beep sounds, so
# that lips can be checked by eye and ear.
#
# Needs ffmpeg with libvpx and libopus, and fonts-dejavu-core.
set -eu
cd "$(dirname "$0")"

font=/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf

ffmpeg -hide_banner -loglevel error -y \
	-f lavfi -i "color=c=0x10243e:s=640x360:r=30:d=10" \
	-f lavfi -i "color=c=0xf2a541:s=80x12:r=30:d=10" \
	-f lavfi -i "color=c=0x2fa4a0:s=56x56:r=30:d=10" \
	-f lavfi -i "color=c=white:s=56x56:r=30:d=10" \
	-filter_complex "
		[0:v]drawgrid=w=40:h=40:t=1:c=0x1d3a5f[grid];
		[grid][1:v]overlay=x='-80+720*mod(t,1)':y=336[bar];
		[bar][2:v]overlay=x='292+240*cos(2*PI*t/5)':y='152+110*sin(2*PI*t/5)'[ball];
		[ball][3:v]overlay=x=568:y=16:enable='lt(mod(n,30),3)'[flash];
		[flash]drawtext=fontfile=$font:text='%{eif\:n\:d\:3}':fontsize=150:fontcolor=white:x=(w-tw)/2:y=98,
		drawtext=fontfile=$font:text='weir  %{eif\:floor(n/30)\:d\:2}.%{eif\:mod(n,30)*100/30\:d\:2} s':fontsize=28:fontcolor=0xf2a541:x=20:y=20,
		format=yuv420p" \
	-frames:v 300 -c:v libvpx -b:v 480k -minrate 200k -maxrate 700k -bufsize 480k \
	-g 15 -keyint_min 15 -auto-alt-ref 0 -lag-in-frames 0 -deadline best -cpu-used 0 -threads 1 \
	-fflags +bitexact -flags:v +bitexact -f ivf pattern.ivf

ffmpeg -hide_banner -loglevel error -y \
	-f lavfi -i "aevalsrc='0.4*sin(2*PI*880*t)*lt(mod(t,1),0.1)+0.02*sin(2*PI*220*t)':s=48000:d=10" \
	-ac 1 -c:a libopus -b:a 32k -vbr on -application audio -frame_duration 20 \
	-fflags +bitexact -flags:a +bitexact -f ogg pattern.ogg

ls -l pattern.ivf pattern.ogg
