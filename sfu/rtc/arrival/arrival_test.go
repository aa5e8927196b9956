package arrival

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
)

// named returns the numbers that messages report as come.
func named(messages []rtcp.Packet) (all []uint16) {
	for _, m := range messages {
		m := m.(*rtcp.TransportLayerCC)
		number := m.BaseSequenceNumber
		for _, c := range m.PacketChunks {
			symbols := []uint16{}
			switch c := c.(type) {
			case *rtcp.RunLengthChunk:
				symbols = slices.Repeat([]uint16{c.PacketStatusSymbol}, int(c.RunLength))
			case *rtcp.StatusVectorChunk:
				symbols = c.SymbolList
			}
			for _, s := range symbols {
				if s != rtcp.TypeTCCPacketNotReceived {
					all = append(all, number)
				}
				number++
			}
		}
	}
	return all
}

// All that has come is reported, a tenth of a second after the first of it; what
// sends the messages holds nothing up; and nothing is sent after Close.
func TestReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []rtcp.Packet
		block := make(chan struct{})
		r := NewReporter(func(p []rtcp.Packet) error {
			<-block
			sent = append(sent, p...)
			return nil
		})
		begin := time.Now()
		for _, n := range []uint16{65534, 65535, 1} {
			r.Came(7, n, time.Now())
		}
		time.Sleep(every)
		synctest.Wait()
		r.Came(7, 2, time.Now())
		if passed := time.Since(begin); passed != every {
			t.Errorf("a packet waited for a message: %v", passed)
		}
		close(block)
		time.Sleep(every)
		synctest.Wait()
		if got := named(sent); !slices.Equal(got, []uint16{65534, 65535, 1, 2}) || len(sent) != 2 {
			t.Errorf("%d messages name %v", len(sent), got)
		}
		time.Sleep(time.Minute)
		if len(sent) != 2 {
			t.Errorf("%d messages, the last ones about nothing", len(sent))
		}
		r.Came(7, 3, time.Now())
		r.Close()
		r.Came(7, 4, time.Now())
		time.Sleep(time.Minute)
		if len(sent) != 2 {
			t.Error("a message after Close")
		}
	})
}

// Where numbers jump, nothing is said of all between, and those after are
// reported.
func TestJumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []rtcp.Packet
		r := NewReporter(func(p []rtcp.Packet) error {
			sent = append(sent, p...)
			return nil
		})
		defer r.Close()
		for i := range 1000 {
			r.Came(7, uint16(i*30_000), time.Now())
		}
		for n := range uint16(3) {
			r.Came(7, 100+n, time.Now())
		}
		time.Sleep(every)
		synctest.Wait()
		if got := named(sent); !slices.Equal(got, []uint16{100, 101, 102}) {
			t.Errorf("%v are reported", got)
		}
	})
}

// FuzzReporter takes whatever numbers, at whatever times.
func FuzzReporter(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 0, 0xff, 0xff, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			r := NewReporter(func(p []rtcp.Packet) error {
				for _, m := range p {
					if _, err := m.Marshal(); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			defer r.Close()
			for ; len(b) >= 3; b = b[3:] {
				time.Sleep(time.Duration(b[2]) * time.Millisecond)
				r.Came(1, uint16(b[0])<<8|uint16(b[1]), time.Now())
			}
			time.Sleep(every)
		})
	})
}
