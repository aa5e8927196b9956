package wire

import (
	"net"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// Host puts a libp2p host's QUIC on the wire, at place. Opened, if not nil, is
// called with each of its ports.
func (w *Wire) Host(place Place, opened func(*Port)) libp2p.Option {
	source := &ownAddress{}
	return libp2p.ChainOptions(libp2p.DisableIdentifyAddressDiscovery(), libp2p.QUICReuse(
		func(life fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
			m, err := quicreuse.NewConnManager(reset, token, opts...)
			if err != nil {
				return nil, err
			}
			life.Append(fx.StopHook(m.Close)) // the host does not close a manager that it was given
			return m, nil
		},
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return source, nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			p, err := w.Listen(addr, place)
			if err != nil {
				return nil, err
			}
			source.ip = p.addr.IP
			if opened != nil {
				opened(p)
			}
			return p, nil
		}),
	))
}

// ownAddress makes a host dial from its only address.
type ownAddress struct{ ip net.IP }

func (a *ownAddress) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return a.ip, nil }
