package meter

// A Measure is a duration that an SFU measures of its own work.
type Measure string

// Values of Measure.
const (
	// FirstVideo and FirstAudio are from a viewer's POST to the first packet of
	// that kind sent to it; of video that is a keyframe's packet, unless none
	// came.
	FirstVideo Measure = "first_video"
	FirstAudio Measure = "first_audio"
	// RoundTrip is the round trip of a cascade link, measured with every
	// heartbeat.
	RoundTrip Measure = "round_trip"
)
