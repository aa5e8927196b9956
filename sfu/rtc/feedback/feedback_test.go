package feedback

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
)

// Requests are counted by their direction, and copies of a datagram, which pion
// passes to each stream that it names, once.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Counters
		i, err := c.NewInterceptor("")
		if err != nil {
			t.Fatal(err)
		}
		packets := []rtcp.Packet{
			&rtcp.PictureLossIndication{MediaSSRC: 1},
			&rtcp.TransportLayerNack{MediaSSRC: 1, Nacks: rtcp.NackPairsFromSequenceNumbers([]uint16{5, 6, 40})},
		}
		datagram, err := rtcp.Marshal(packets)
		if err != nil {
			t.Fatal(err)
		}
		reader := i.BindRTCPReader(interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
			return copy(b, datagram), a, nil
		}))
		read := func() {
			if _, _, err := reader.Read(make([]byte, 1500), nil); err != nil {
				t.Fatal(err)
			}
		}
		read()
		read() // a copy
		if got, want := c.Read(), (Counts{KeyframesIn: 1, RepairsIn: 3}); got != want {
			t.Errorf("a datagram and its copy count %+v, want %+v", got, want)
		}
		time.Sleep(duplicateWithin)
		read() // requested again
		writer := i.BindRTCPWriter(interceptor.RTCPWriterFunc(func(p []rtcp.Packet, _ interceptor.Attributes) (int, error) { return len(p), nil }))
		if _, err := writer.Write(packets, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := c.Read(), (Counts{KeyframesIn: 2, KeyframesOut: 1, RepairsIn: 6, RepairsOut: 3}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}
