package holding

import (
	"errors"
	"fmt"

	"weir/dht/pb"
)

// ErrBusy means that a node has no place for one more request of its kind now.
// It says nothing about the records that the node holds.
var ErrBusy = errors.New("busy")

// ErrRequests is an [ErrBusy] of a node that serves all the requests it can.
var ErrRequests = fmt.Errorf("%w: too many requests at once", ErrBusy)

// ReplyError is why a holder did not serve a request, or nil. It is an
// [ErrBusy] if the holder had no place for it.
func ReplyError(resp *pb.Response) error {
	switch {
	case resp.Error == "":
		return nil
	case resp.Busy:
		return fmt.Errorf("%w: holder refused: %.200s", ErrBusy, resp.Error)
	}
	return fmt.Errorf("holder refused: %.200s", resp.Error)
}
