//go:build !linux

package forward

import (
	"context"
	"errors"
)

// Run measures on Linux only.
func Run(context.Context, Config) (*Report, error) {
	return nil, errors.New("bench forward needs Linux: /proc, CPU affinity, recvmmsg and UDP_SEGMENT")
}
