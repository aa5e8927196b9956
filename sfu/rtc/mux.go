package rtc

import (
	"cmp"
	"net"
	"slices"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"

	"weir/sfu/udp"
)

// offeredMux returns the addresses of a mux bound to all of them in the order
// in which peers should try them: loopback last, which only helps a peer on the
// same machine.
type offeredMux struct{ *ice.UDPMuxDefault }

// GetListenAddresses implements ice.UDPMux.
func (m offeredMux) GetListenAddresses() []net.Addr {
	all := m.UDPMuxDefault.GetListenAddresses()
	loopback := func(a net.Addr) int {
		if udp, ok := a.(*net.UDPAddr); ok && udp.IP.IsLoopback() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b net.Addr) int { return cmp.Compare(loopback(a), loopback(b)) })
	return all
}

// tcpMux is the mux of pion, with one connection of a session for all local
// addresses.
type tcpMux struct{ *ice.TCPMuxDefault }

func newTCPMux(l net.Listener, log logging.LeveledLogger) *tcpMux {
	return &tcpMux{ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: l, Logger: log, ReadBufferSize: 32, WriteBufferSize: udp.TCPQueue,
		FirstStunBindTimeout: udp.TCPFirst, AliveDurationForConnFromStun: udp.TCPFirst,
	})}
}

// GetConnByUfrag implements ice.TCPMux.
func (m *tcpMux) GetConnByUfrag(ufrag string, six bool, _ net.IP) (net.PacketConn, error) {
	return m.TCPMuxDefault.GetConnByUfrag(ufrag, six, udp.TCPLocal(six))
}
