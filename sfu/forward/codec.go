package forward

import "strings"

// A Kind is the kind of a track's media, as in SDP.
type Kind string

// The kinds of media.
const (
	Audio Kind = "audio"
	Video Kind = "video"
)

// A Codec is the codec of a track. Payloads are not parsed, except to find
// keyframes.
type Codec struct {
	MimeType  string // "video/VP8"
	ClockRate uint32 // of timestamps, Hz
	Channels  uint16 // of audio
	Fmtp      string // format parameters, as in a=fmtp
}

// Kind is the kind of media.
func (c Codec) Kind() Kind {
	if strings.HasPrefix(c.MimeType, "audio/") {
		return Audio
	}
	return Video
}
