package meter

// A Measure is a time that an SFU takes of its own work.
type Measure string

// All there are.
const (
	// FirstVideo and FirstAudio are from a viewer's POST to the first packet of
	// that kind sent to it; of video that is a keyframe's, unless none came.
	FirstVideo Measure = "first_video"
	FirstAudio Measure = "first_audio"
	// RoundTrip is that of a cascade link, taken with every heartbeat.
	RoundTrip Measure = "round_trip"
)
