#!/bin/sh
# Records each stream from its start to its end, as Matroska. Needs ffmpeg.
#
#   weir node … --event-kinds stream.started --event-command cmd/weir/hooks/record.sh
#
# RECORDINGS is the directory (recordings), WEIR the program (weir), and WHEP where
# streams are asked for, if that is not the node's public URL. If the node wants
# tokens, WEIR_TOKEN is one that may view. While a stream is recorded, and if that
# fails, what there is of it is in a directory beside, with a log.
#
# What the hook is given is described in .github/docs/operating.md.
set -eu

[ "$WEIR_EVENT_KIND" = stream.started ] || exit 0
weir=${WEIR:-weir}
url=${WHEP:-$WEIR_EVENT_NODE_URL}/whep/$WEIR_EVENT_STREAM
file=${RECORDINGS:-recordings}/$(printf %s "$WEIR_EVENT_STREAM" | tr / _)-$(printf %s "$WEIR_EVENT_TIME" | tr -d :-)
part=$file.part

for tool in "$weir" ffmpeg; do
	command -v "$tool" >/dev/null || { echo "$tool is not there" >&2; exit 1; }
done

# An event that comes again, since its answer was lost, is recorded already.
mkdir -p "${RECORDINGS:-recordings}"
mkdir "$part" 2>/dev/null || exit 0

record() {
	# It ends with 1 when the stream does.
	"$weir" view --reconnect 0s --interval 1h --save "$part/video.ivf" --save-audio "$part/audio.ogg" "$url" || true
	set --
	[ "$(wc -c <"$part/video.ivf")" -le 32 ] || set -- "$@" -i "$part/video.ivf"
	[ "$(wc -c <"$part/audio.ogg")" -le 256 ] || set -- "$@" -i "$part/audio.ogg"
	ffmpeg -nostdin -v error -y "$@" -c copy "$part/out.mkv"
	mv "$part/out.mkv" "$file.mkv"
	rm -r "$part"
}

# It goes on by itself: the node waits for a hook until it ends.
trap '' HUP
record </dev/null >"$part/log" 2>&1 &
